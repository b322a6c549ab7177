"""Projected gradient ascent that records for every iterate its value, the exit taken, and whether it breaks the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import expected_failure
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Objective
from exitbench.attacks.regions import ThreatModel
from exitbench.checks.subject import Subject
from exitbench.models.policies import Policy

TEMPERATURE = 0.2
"""Temperature of the soft gates: that of the adaptive attack in the middle of its first ascent."""

AT_ONCE = 256
"""Images that are judged as one batch."""


@dataclass(frozen=True)
class SoftRule:
    """The expected failure of the deployed rule under soft gates, the first objective of the adaptive attack."""

    policy: Policy

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return expected_failure(logits, y, self.policy, TEMPERATURE)


@dataclass(frozen=True, eq=False)
class Trace:
    """The path of an ascent of T steps, from its start to its end.

    Attributes:
        values: ``(T + 1, B)``, values of the objective.
        wrong: ``(T + 1, B)`` bool, whether the deployed prediction is wrong.
        exits: ``(T + 1, B)``, the exit taken (0-based).
        last: ``(B, C, H, W)``, the last iterate.
    """

    values: Tensor
    wrong: Tensor
    exits: Tensor
    last: Tensor

    @property
    def broken(self) -> Tensor:
        """Whether some iterate breaks each sample, ``(B,)`` bool."""
        return self.wrong.any(0)

    def rows(self, mask: Tensor) -> Trace:
        """Return the path of the samples where ``mask`` ``(B,)`` is true."""
        return Trace(self.values[:, mask], self.wrong[:, mask], self.exits[:, mask], self.last[mask])


def ascend(
    subject: Subject,
    threat_model: ThreatModel,
    steps: int,
    step_size: float,
    restart: int = 0,
    objective: Objective | SoftRule | None = None,
) -> Trace:
    """Take the steps of ``PGD`` from a random start, on the plain model.

    Args:
        subject: The samples.
        threat_model: What the attacker may do.
        steps: Number of gradient steps.
        step_size: Length of a step in the ball's norm.
        restart: Number of the random start.
        objective: The objective to ascend; None for that of the subject.

    Raises:
        RuntimeError: If the objective has no gradient at all (torch's own message).
    """
    x, y, objective = subject.x, subject.y, objective or subject.objective
    judged = _Judged(subject)
    x_adv = threat_model.start(x, subject.noise, restart)
    values: list[Tensor] = []
    for step in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            logits = subject.searched(x_adv)
            worth = objective(logits, y)
        values.append(worth.detach())
        judged.add(x_adv.detach(), logits.detach())
        if step < steps:
            (gradient,) = torch.autograd.grad(worth.sum(), x_adv)
            x_adv = threat_model.project(x_adv.detach() + step_size * threat_model.steepest(gradient), x)
    wrong, exits = judged.outcomes()
    return Trace(torch.stack(values), wrong, exits, x_adv.detach())


def broken_in(subject: Subject, threat_models: Sequence[ThreatModel], steps: int, ratio: float) -> list[Tensor]:
    """Return for each ball whether an iterate of an ascent in it breaks each sample, ``(B,)``; the ascents are one batch.

    Args:
        subject: The samples.
        threat_models: Balls of one norm.
        steps: Number of gradient steps.
        ratio: Length of a step as a share of each radius.
    """
    n, balls = len(subject.y), list(threat_models)
    x = subject.x.repeat(len(balls), 1, 1, 1)
    noise = Noise(subject.noise.seed, subject.noise.samples * len(balls))
    whole = replace(subject, x=x, y=subject.y.repeat(len(balls)), noise=noise)
    size = torch.tensor([ratio * ball.eps for ball in balls], dtype=x.dtype).repeat_interleave(n).to(x.device)
    judged = _Judged(whole)
    x_adv = torch.cat([ball.start(subject.x, subject.noise, 0) for ball in balls])
    for step in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            logits = whole.searched(x_adv)
        judged.add(x_adv.detach(), logits.detach())
        if step < steps:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(whole.objective(logits, whole.y).sum(), x_adv)
            moved = x_adv.detach() + size.view(-1, 1, 1, 1) * balls[0].steepest(gradient)
            x_adv = torch.cat([ball.project(part, subject.x) for ball, part in zip(balls, torch.split(moved, n), strict=True)])
    return list(torch.split(judged.outcomes()[0].any(0), n))


class _Judged:
    """The outcomes of iterates under the plain model: at once where it is searched on, else in a few large batches at the end.

    Args:
        subject: The samples ``(B,)``.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.found: list[tuple[Tensor, Tensor]] = []
        self.later: list[Tensor] = []

    def add(self, x_adv: Tensor, logits: Tensor) -> None:
        """Add an iterate and its logits under the network that is searched on."""
        if self.subject.searched is self.subject.model:
            self.found.append(self.subject.outcome(logits))
        else:
            self.later.append(x_adv)

    @torch.no_grad()
    def outcomes(self) -> tuple[Tensor, Tensor]:
        """Return whether the deployed prediction is wrong, and the exit taken, ``(T + 1, B)`` each."""
        per_batch = max(1, AT_ONCE // max(1, len(self.subject.y)))
        for start in range(0, len(self.later), per_batch):
            images = self.later[start : start + per_batch]
            parts = torch.split(self.subject.model(torch.cat(images)), len(self.subject.y), dim=1)
            self.found += [self.subject.outcome(logits) for logits in parts]
        self.later = []
        wrong, exits = zip(*self.found, strict=True)
        return torch.stack(wrong), torch.stack(exits)

"""Projected gradient ascent that records for every iterate its value, the exit taken, and whether it breaks the sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import expected_failure
from exitbench.attacks.objectives import Objective
from exitbench.attacks.regions import ThreatModel
from exitbench.checks.subject import Subject
from exitbench.models.policies import Policy

TEMPERATURE = 0.2
"""Temperature of the soft gates: that of the adaptive attack in the middle of its first ascent."""


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
    x_adv = threat_model.start(x, subject.noise, restart)
    values: list[Tensor] = []
    wrong: list[Tensor] = []
    exits: list[Tensor] = []
    for step in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            logits = subject.model(x_adv)
            worth = objective(logits, y)
        values.append(worth.detach())
        for found, kept in zip(subject.outcome(logits.detach()), (wrong, exits), strict=True):
            kept.append(found)
        if step < steps:
            (gradient,) = torch.autograd.grad(worth.sum(), x_adv)
            x_adv = threat_model.project(x_adv.detach() + step_size * threat_model.steepest(gradient), x)
    return Trace(torch.stack(values), torch.stack(wrong), torch.stack(exits), x_adv.detach())

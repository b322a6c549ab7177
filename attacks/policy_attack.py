"""The adaptive attack on the deployed rule: it breaks the sample at whichever exit it can make it take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.base import Attack
from attacks.deployed_loss import clipped, distance_to_failure, expected_failure, expected_margin, needs
from attacks.gradient import unit_mean
from attacks.noise import Noise
from attacks.regions import Ball
from models.multi_exit import MultiExitNet
from models.policies import Policy, deployed_logits

SOFT_STEPS, TARGETED_STEPS = 20, 25
LIMIT = 0.15  # slack at which a gate's constraint stops pulling

Ascended = Callable[[Tensor, Tensor, float, Tensor], Tensor]
"""Logits, labels, progress in [0, 1] and rows to values ``(B,)``."""


@dataclass(frozen=True)
class PolicyAttack(Attack):
    """Sign ascent with momentum on the deployed rule; every iterate is tested under the policy, survivors alone go on.

    A cycle ascends the expected failure under soft gates from a random start, then the expected margin from the iterate
    closest to failing, the temperature annealed; then, from there, one exit after another, nearest first: a wrong class's
    probability and the margin in turn, its gate open, the gates before it shut, the weight of a constraint growing while
    it is violated.

    Attributes:
        region: Linf or L2 ball.
        policy: the deployed rule.
        cycles: how often.
        exits_per_cycle: how many exits are tried one by one in each.
    """

    region: Ball
    policy: Policy
    cycles: int = 2
    exits_per_cycle: int = 3

    @property
    def expected_gradients(self) -> float:
        return 50.0

    def propose(self, model: MultiExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        search = _Search(model, self.region, self.policy, x, y)
        tried = torch.zeros_like(search.violations)
        for cycle in range(self.cycles):
            search.ascend(self._soft(expected_failure, 0.5), self.region.start(x, noise, cycle), SOFT_STEPS, shrink=0.25)
            near = search.best if cycle == 0 else self._shaken(search.best, x, noise, cycle)
            search.ascend(self._soft(expected_margin, 0.3), near, SOFT_STEPS, shrink=0.25)
            for turn in range(min(self.exits_per_cycle, model.n_exits)):
                k = (search.violations + tried).argmin(0)
                tried[k, torch.arange(len(y), device=y.device)] += 100
                search.ascend(
                    self._targeted(k, model.n_exits, by_margin=turn % 2 == 1), search.best, TARGETED_STEPS, shrink=0.125
                )
        return search.best

    def _shaken(self, best: Tensor, x: Tensor, noise: Noise, cycle: int) -> Tensor:
        """A point near ``best``: a quarter of the way to a random one."""
        away = self.region.start(x, noise, self.cycles + cycle)
        return self.region.project(best + (away - x) / 4, x)

    def _soft(self, objective: Callable[[Tensor, Tensor, Policy, float], Tensor], warm: float) -> Ascended:
        def ascended(logits: Tensor, y: Tensor, progress: float, _rows: Tensor) -> Tensor:
            return objective(logits, y, self.policy, warm * (0.05 / warm) ** progress)

        return ascended

    def _targeted(self, k: Tensor, n_exits: int, *, by_margin: bool) -> Ascended:
        weights = torch.full((n_exits - 1, len(k)), 2.0, device=k.device)

        def ascended(logits: Tensor, y: Tensor, _progress: float, rows: Tensor) -> Tensor:
            margin, gates = needs(logits, y, self.policy, k[rows])
            matters = gates.isfinite()
            violated = matters & (gates.detach() < 0)
            now = weights[:, rows]
            now = torch.where(violated, (1.3 * now).clamp(max=60), (0.95 * now).clamp(min=0.5))
            weights[:, rows] = now
            pull = torch.where(matters, now * clipped(torch.where(matters, gates, 0.0), LIMIT), 0.0)
            if by_margin:
                return 2 * margin + pull.sum(0)
            at_exit = logits[k[rows], torch.arange(len(rows), device=rows.device)].log_softmax(-1)
            return at_exit.masked_fill(F.one_hot(y, at_exit.shape[-1]).bool(), -torch.inf).amax(-1) + pull.sum(0)

        return ascended


class _Search:
    """Per sample: the iterate closest to failing under the policy so far, and whether it fails."""

    def __init__(self, model: MultiExitNet, region: Ball, policy: Policy, x: Tensor, y: Tensor) -> None:
        self.model, self.region, self.policy, self.x, self.y = model, region, policy, x, y
        with torch.no_grad():
            logits = model(x)
        self.best = x.clone()
        self.violations = distance_to_failure(logits, y, policy)
        self.broken = self._fails(logits, y)

    def _fails(self, logits: Tensor, y: Tensor) -> Tensor:
        return deployed_logits(logits, self.policy)[0].argmax(-1) != y

    def ascend(self, objective: Ascended, start: Tensor, steps: int, *, shrink: float, momentum: float = 0.75) -> None:
        """Ascend from ``start`` for the samples not yet broken, with cosine steps from eps/4 down to ``shrink`` of that."""
        rows = (~self.broken).nonzero().flatten()
        x_adv, velocity = start[rows].clone(), torch.zeros_like(start[rows])
        for step in range(steps + 1):
            if not len(rows):
                return
            final = step == steps
            x_adv.requires_grad_(not final)
            with torch.set_grad_enabled(not final):
                logits = self.model(x_adv)
                if not final:
                    (gradient,) = torch.autograd.grad(objective(logits, self.y[rows], step / steps, rows).sum(), x_adv)
            x_adv = x_adv.detach()
            broken = self._record(rows, x_adv, logits.detach())
            if final:
                return
            rows, x_adv, velocity, gradient = rows[~broken], x_adv[~broken], velocity[~broken], gradient[~broken]
            velocity = momentum * velocity + unit_mean(gradient)
            size = self.region.eps / 4 * (shrink + (1 - shrink) * (1 + math.cos(math.pi * step / steps)) / 2)
            x_adv = self.region.project(x_adv + size * self.region.steepest(velocity), self.x[rows])

    def _record(self, rows: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Test the iterates under the policy and keep those that fail or are closest to it."""
        broken = self._fails(logits, self.y[rows])
        violations = distance_to_failure(logits, self.y[rows], self.policy)
        closer = broken | (violations.amin(0) < self.violations[:, rows].amin(0))
        self.best[rows[closer]] = x_adv[closer]
        self.violations[:, rows[closer]] = violations[:, closer]
        self.broken[rows[broken]] = True
        return broken

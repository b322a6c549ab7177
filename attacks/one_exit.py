"""The adaptive attack on a rule that takes one exit for every image: one wrong class after another, those in reach for longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.adaptive_search import Search
from exitbench.attacks.apgd import climb
from exitbench.attacks.budget import Budgeted
from exitbench.attacks.deployed_loss import expected_margin
from exitbench.attacks.gradient import Ascent
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import TargetedDLR
from exitbench.attacks.pairs import PairSearch, Rung
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import BUDGET
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import FixedExit

RUNGS = (Rung(9, 30, 1 / 32), Rung(3, 110, 1 / 64))
"""Up to nine classes, then the three that these come closest to."""

STEPS = 100
"""Steps of APGD towards a class."""

DRAW = 3_000_000
"""Restart of the first start's draw; those of other searches are below."""


@dataclass(frozen=True)
class AdaptiveAtOneExit(Budgeted):
    """The adaptive attack where no choice of an exit can be attacked: only the prediction of one exit is left to change.

    Sign ascents with momentum: of the margin, 20 steps; of the lead of each wrong class, up to nine, 30 steps from a random start
    each; of the three that come closest, 110 steps; from the closest iterate of all, 55 small steps. What is left after these 675
    gradients is searched by targeted APGD (Croce & Hein, ICML 2020, section 4.1), 100 steps towards each wrong class, nearest on
    the clean image first, from one random start after another. Every iterate is tested, as in ``Adaptive``, and what a budget
    breaks a larger one breaks.

    Attributes:
        region: Linf or L2 ball.
        policy: The deployed rule.
        budget: Largest number of gradients per sample.

    Raises:
        InvalidValue: If the budget is below 1.
    """

    version: ClassVar[int] = 2

    region: ThreatModel
    policy: FixedExit
    budget: int = BUDGET

    @property
    def summary(self) -> str:
        return f"margin, then one class after another, by apgd-{STEPS} in the end; at most {self.budget} gradients"

    @property
    def again(self) -> AdaptiveAtOneExit:
        """The attack on the network itself, where only the faster copy is broken: APGD towards nine classes, too."""
        return replace(self, budget=self.budget + RUNGS[0].pairs * (STEPS + 1))

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        self.policy.check(model.n_exits)
        search = Search(model, self.region, self.policy, x, y, self.budget)
        targets = _ranked(search.logits[self.policy.exit - 1], y)
        adaptive = Adaptive(self.region, self.policy, self.budget)
        adaptive.softly(search, expected_margin, self.region.start(x, noise, 0), warm=0.3, last=1 / 16)
        classes = PairSearch(search, self.policy, noise)
        for rung in RUNGS:
            classes.climb(rung, torch.zeros_like(classes.tries))
        classes.polish()
        for turn in count():
            rows = search.survivors()
            if not (search.left and len(rows)):
                break
            self._towards(search, rows, targets[rows, turn % targets.shape[1]], self.region.start(x, noise, DRAW + turn)[rows])
        return search.candidates

    def _towards(self, search: Search, rows: Tensor, target: Tensor, start: Tensor) -> None:
        """Run APGD once, or as much of it as the budget allows: it looks at the start and after each step."""
        looks = min(STEPS + 1, search.left)
        search.left -= looks

        def look(x_adv: Tensor) -> Ascent:
            x_adv = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                logits = search.model(x_adv)
                values = _lead(logits[self.policy.exit - 1], search.y[rows], target)
                (gradient,) = torch.autograd.grad(values.sum(), x_adv)
            search.record(rows, x_adv.detach(), logits.detach())
            return Ascent(values.detach(), gradient, search.broken[rows])

        climb(look, self.region, search.x[rows], start, STEPS, looks - 1)


def _ranked(logits: Tensor, y: Tensor) -> Tensor:
    """Rank the wrong classes ``(B, C - 1)`` by their logits ``(B, C)``, the highest first."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]


def _lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the targeted DLR ``(B,)``, or the target's margin where there are too few classes for it."""
    if logits.shape[-1] >= TargetedDLR.least_classes:
        return TargetedDLR()(logits[None], y, target)[0]
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]

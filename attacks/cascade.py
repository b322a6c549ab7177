"""Attacks in turn, each on the survivors of those before it: the worst case at a low cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from exitbench.attacks.apgd import APGD, APGDTargeted
from exitbench.attacks.base import Attack
from exitbench.attacks.early_stop import EarlyStopModel
from exitbench.attacks.noise import Noise
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import column
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import Policy, deployed_logits


@dataclass(frozen=True)
class Cascade(Attack):
    """A sequence of attacks, each run on the samples that the deployed rule still gets right.

    The adaptive attack goes on for longer than alone on samples that come near (``Adaptive.near_budget``). Every iterate of PGD
    and APGD is tested under the deployed rule, whichever exit is ascended, and a sample that breaks leaves at once, as in the
    adaptive attack. The candidate is the first image that makes the deployed rule fail, else the first that makes some exit
    wrong, else the clean image. Put cheap attacks first, so that AutoAttack runs on survivors alone.

    Attributes:
        attacks: The attacks, in order.
        policy: The deployed rule.

    Raises:
        InvalidValue: If there are no attacks, or one is not bound to the ball.
    """

    version: ClassVar[int] = 3
    gathers: ClassVar[bool] = True

    attacks: tuple[Attack, ...]
    policy: Policy

    def __post_init__(self) -> None:
        if not self.attacks:
            raise InvalidValue("a cascade needs at least one attack")
        if not all(attack.bounded for attack in self.attacks):
            raise InvalidValue("an attack without a ball has no place in a worst case")

    @property
    def summary(self) -> str:
        return f"{len(self.attacks)} attacks in turn, each on the survivors of those before"

    @property
    def expected_gradients(self) -> float:
        return max(attack.thorough.expected_gradients for attack in self.attacks)

    @property
    def implementation(self) -> str | None:
        return next((attack.implementation for attack in self.attacks if attack.implementation), None)

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        found = x.clone()
        right, near = self._verdicts(model, x, y)
        rows = right.nonzero().flatten()
        done: dict[Attack, Tensor] = {}
        for attack in self.attacks:
            if not len(rows):
                break
            x_adv = self._once(attack.thorough, model, x, y, noise, rows, done)
            right, some_wrong = self._verdicts(model, x_adv, y[rows])
            taken = ~right | (some_wrong & ~near[rows])
            found[rows[taken]] = x_adv[taken]
            near[rows[some_wrong]] = True
            rows = rows[right]
        return found

    @torch.no_grad()
    def _verdicts(self, model: EarlyExitNet, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether the deployed rule is right, and whether some exit is wrong, ``(B,)`` bool each."""
        logits = model(x)
        return deployed_logits(logits, self.policy)[0].argmax(-1) == y, (logits.argmax(-1) != y).any(0)

    def _once(
        self, attack: Attack, model: EarlyExitNet, x: Tensor, y: Tensor, noise: Noise, rows: Tensor, done: dict[Attack, Tensor]
    ) -> Tensor:
        """Return candidates for ``rows``, or iterates that broke the rule on the way; attacks that have run are not run again."""
        if attack not in done:
            children = [self._once(child, model, x, y, noise, rows, done) for child in attack.children]
            searched = model
            if isinstance(attack, PGD | APGD | APGDTargeted):  # whose batches are these samples, row by row
                searched = EarlyStopModel(model, x[rows], y[rows], self.policy, attack.region)
            x_adv = attack.generate(searched, x[rows], y[rows], noise=noise.of(rows), candidates=children)
            if isinstance(searched, EarlyStopModel):
                x_adv = torch.where(column(searched.broken, x_adv), searched.found, x_adv)
            done[attack] = x.clone()
            done[attack][rows] = x_adv
        return done[attack][rows]

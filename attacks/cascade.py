"""Attacks in turn, each on what those before it left standing: the worst case at the price of the survivors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Attack
from attacks.noise import Noise
from models.multi_exit import MultiExitNet
from models.policies import Policy, deployed_logits


@dataclass(frozen=True)
class Cascade(Attack):
    """Runs ``attacks`` one after another on the samples that the deployed rule still gets right.

    Proposes the first image that makes the deployed rule fail; the clean image where none does. Put the cheap ones first:
    what AutoAttack costs, it then costs for survivors alone.

    Attributes:
        attacks: in order.
        policy: the deployed rule.

    Raises:
        ValueError: for no attack, or one that is not bound to the ball.
    """

    attacks: tuple[Attack, ...]
    policy: Policy

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("a cascade needs at least one attack")
        if not all(attack.bounded for attack in self.attacks):
            raise ValueError("an attack without a ball has no place in a worst case")

    @property
    def expected_gradients(self) -> float:
        return max(attack.expected_gradients for attack in self.attacks)

    @property
    def implementation(self) -> str | None:
        return next((attack.implementation for attack in self.attacks if attack.implementation), None)

    def propose(self, model: MultiExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        found = x.clone()
        rows = self._right(model, x, y).nonzero().flatten()
        for attack in self.attacks:
            if not len(rows):
                break
            x_adv = attack(model, x[rows], y[rows], noise=noise.of(rows))
            right = self._right(model, x_adv, y[rows])
            found[rows[~right]] = x_adv[~right]
            rows = rows[right]
        return found

    @torch.no_grad()
    def _right(self, model: MultiExitNet, x: Tensor, y: Tensor) -> Tensor:
        return deployed_logits(model(x), self.policy)[0].argmax(-1) == y

"""Attacks in turn, each on what those before it left standing: the worst case at the price of the survivors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Attack
from attacks.noise import Noise
from models.early_exit import EarlyExitNet
from models.policies import Policy, deployed_logits


@dataclass(frozen=True)
class Cascade(Attack):
    """Runs ``attacks`` one after another on the samples that the deployed rule still gets right.

    Proposes the first image that makes the deployed rule fail; where none does, the first that makes some exit wrong, else
    the clean image. Put the cheap ones first: what AutoAttack costs, it then costs for survivors alone.

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

    def propose(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        found = x.clone()
        right, near = self._judge(model, x, y)
        rows = right.nonzero().flatten()
        done: dict[Attack, Tensor] = {}
        for attack in self.attacks:
            if not len(rows):
                break
            x_adv = _once(attack, model, x, y, noise, rows, done)
            right, some_wrong = self._judge(model, x_adv, y[rows])
            taken = ~right | (some_wrong & ~near[rows])
            found[rows[taken]] = x_adv[taken]
            near[rows[some_wrong]] = True
            rows = rows[right]
        return found

    @torch.no_grad()
    def _judge(self, model: EarlyExitNet, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the deployed rule is right, and whether some exit is wrong, ``(B,)`` each."""
        logits = model(x)
        return deployed_logits(logits, self.policy)[0].argmax(-1) == y, (logits.argmax(-1) != y).any(0)


def _once(
    attack: Attack, model: EarlyExitNet, x: Tensor, y: Tensor, noise: Noise, rows: Tensor, done: dict[Attack, Tensor]
) -> Tensor:
    """The attack's candidates for ``rows``; what it builds on is not run again where it has been, on these rows and more."""
    if attack not in done:
        children = [_once(child, model, x, y, noise, rows, done) for child in attack.children]
        done[attack] = x.clone()
        done[attack][rows] = attack.propose(model, x[rows], y[rows], noise=noise.of(rows), candidates=children)
    return done[attack][rows]

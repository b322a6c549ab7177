"""Selection among attacks by an objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.gradient import value
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Objective, label
from exitbench.models.early_exit import EarlyExitNet


@dataclass(frozen=True)
class BestOf(Attack):
    """The candidate, for each sample, with the highest objective ``by`` among those of ``attacks``; the first wins ties.

    The choice depends on logits alone: where the candidates' logits are stored, ``choose`` gives the result without a forward
    pass.

    Attributes:
        attacks: The attacks to choose among, at least one.
        by: The objective to choose by.

    Raises:
        ValueError: If there are no attacks.
    """

    attacks: tuple[Attack, ...]
    by: Objective

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("BestOf needs at least one attack")

    @property
    def children(self) -> tuple[Attack, ...]:
        return self.attacks

    @property
    def bounded(self) -> bool:
        return all(attack.bounded for attack in self.attacks)

    @property
    def summary(self) -> str:
        chosen = f"best of {len(self.attacks)} by {label(self.by.over)} {label(self.by.loss)}"
        return f"{chosen}; {self.attacks[0].summary}"

    def choose(self, logits: Sequence[Tensor], y: Tensor) -> Tensor:
        """Return the index ``(B,)`` of the child chosen for each sample, from each child's logits ``(K, B, C)``."""
        return torch.stack([self.by(child, y) for child in logits]).argmax(0)

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        values = torch.stack([value(model, self.by, candidate, y) for candidate in candidates])
        return torch.stack(list(candidates))[values.argmax(0), torch.arange(len(x), device=x.device)]

"""The attack that changes nothing, so that clean accuracy is computed like every other number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.noise import Noise
from exitbench.models.early_exit import EarlyExitNet


@dataclass(frozen=True)
class Clean(Attack):
    """An attack that returns the clean images; it is called ``none`` in results."""

    @property
    def summary(self) -> str:
        return ""

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        return x

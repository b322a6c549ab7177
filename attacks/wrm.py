"""WRM: ascent on a loss minus what the distance costs, in place of a ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.gradient import ascent, value
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Objective
from exitbench.attacks.regions import Penalty, column
from exitbench.models.early_exit import EarlyExitNet


@dataclass(frozen=True)
class WRM(Attack):
    """Gradient ascent on ``objective - gamma * ||x_adv - x||^2`` (Sinha, Namkoong & Duchi, ICLR 2018, algorithm 1).

    Loss and cost are both the sample's own, where the released code of Triple Wins weighs a mean over the batch against a
    sum. Steps start at ``1 / (2 gamma)``, with which one step is exact on a linear loss; a step that does not climb is
    taken back and halved, so the value returned is never below the clean image's.

    Attributes:
        objective: what is ascended.
        region: the price of distance.
        steps: gradients per sample.
        start: ``clean``, or another attack's candidate.
    """

    objective: Objective
    region: Penalty
    steps: int
    start: Literal["clean"] | Attack = "clean"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"need at least one step, got {self.steps}")

    @property
    def bounded(self) -> bool:
        return False

    @property
    def children(self) -> tuple[Attack, ...]:
        return (self.start,) if isinstance(self.start, Attack) else ()

    @property
    def expected_gradients(self) -> float:
        return self.steps

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        here = candidates[0] if candidates else x
        moved = here
        size = torch.full_like(x[:, :1].flatten(1)[:, 0], 1 / (2 * self.region.gamma))
        best = torch.full_like(size, -torch.inf)
        slope = torch.zeros_like(x)
        for step in range(self.steps + 1):
            found = None if step == self.steps else ascent(model, self.objective, moved, y)
            values = value(model, self.objective, moved, y) if found is None else found.values
            values = values - self.region.cost(moved, x)
            # A NaN value is taken at once: the harness must see it, not a clean image in its place.
            climbs = ~(values <= best)
            climbing = column(climbs, x)
            here, best = torch.where(climbing, moved, here), torch.where(climbs, values, best)
            if found is None:
                break
            slope = torch.where(climbing, found.gradient - 2 * self.region.gamma * (moved - x), slope)
            size = torch.where(climbs, size, size / 2)
            moved = self.region.project(here + column(size, x) * slope, x)
        return here

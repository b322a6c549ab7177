"""WRM: gradient ascent on a loss minus a penalty on the distance, in place of a ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.gradient import ascent, value
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Objective, label
from exitbench.attacks.regions import Penalty, column
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue


@dataclass(frozen=True)
class WRM(Attack):
    """Gradient ascent on ``objective - gamma * ||x_adv - x||^2`` (Sinha, Namkoong & Duchi, ICLR 2018, algorithm 1).

    Loss and penalty are both per sample; the released code of "Triple Wins" weighs a mean over the batch against a sum. The step
    size starts at ``1 / (2 gamma)``, for which one step is exact on a linear loss. A step that does not climb is undone and the
    step size halved, so that the value is never below that of the clean image.

    Attributes:
        objective: The objective to ascend.
        region: The penalty on the distance.
        steps: Gradients per sample.
        start: ``clean``, or the attack whose candidate is the start.

    Raises:
        InvalidValue: If ``steps`` is below 1.
    """

    objective: Objective
    region: Penalty
    steps: int
    start: Literal["clean"] | Attack = "clean"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidValue(f"need at least one step, got {self.steps}")

    @property
    def bounded(self) -> bool:
        return False

    @property
    def children(self) -> tuple[Attack, ...]:
        return (self.start,) if isinstance(self.start, Attack) else ()

    @property
    def summary(self) -> str:
        return f"wrm-{self.steps}, gamma {self.region.gamma:g}, {label(self.objective.loss)}; not bound to the ball"

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
            # A NaN value is accepted at once: the runner must see it, not a clean image in its place.
            climbs = ~(values <= best)
            climbing = column(climbs, x)
            here, best = torch.where(climbing, moved, here), torch.where(climbs, values, best)
            if found is None:
                break
            slope = torch.where(climbing, found.gradient - 2 * self.region.gamma * (moved - x), slope)
            size = torch.where(climbs, size, size / 2)
            moved = self.region.project(here + column(size, x) * slope, x)
        return here

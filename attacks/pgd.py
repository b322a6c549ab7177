"""Projected gradient ascent (PGD), and FGSM as its one-step form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.gradient import value, value_and_gradient
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Objective, label
from exitbench.attacks.regions import ThreatModel, column
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import eps_text

Keep = Literal["best", "last"]
Start = Literal["random", "clean"]


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent (Madry et al., ICLR 2018) on any objective in any ball.

    Attributes:
        objective: The objective to ascend.
        region: Linf or L2 ball.
        steps: Gradient steps per restart.
        step_size: Length of a step in the region's norm.
        restarts: Number of independent runs; the best by the objective wins.
        keep: ``last`` returns each run's last iterate, as the paper does; ``best`` its best by the objective.
        start: ``random`` in the region, ``clean``, or the attack whose candidate is the start.

    Raises:
        InvalidValue: If ``steps`` or ``restarts`` is below 1, or there are restarts without a random start.
    """

    version: ClassVar[int] = 2

    objective: Objective
    region: ThreatModel
    steps: int
    step_size: float
    restarts: int = 1
    keep: Keep = "best"
    start: Start | Attack = "random"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise InvalidValue(f"need at least one step and one restart, got {self.steps} and {self.restarts}")
        if self.start != "random" and self.restarts > 1:
            raise InvalidValue("restarts differ only by their random start")

    @property
    def children(self) -> tuple[Attack, ...]:
        return (self.start,) if isinstance(self.start, Attack) else ()

    @property
    def summary(self) -> str:
        if self.steps == 1 and self.step_size == self.region.eps and self.start != "random":
            return f"fgsm, {label(self.objective.loss)}"
        restarts = f" x{self.restarts}" if self.restarts > 1 else ""
        return f"pgd-{self.steps}{restarts}, step {eps_text(self.step_size)}, {label(self.objective.loss)}, keep {self.keep}"

    @property
    def expected_gradients(self) -> float:
        return self.steps * self.restarts

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        best = _Best(x)
        for restart in range(self.restarts):
            x_adv = begin(self.start, self.region, x, noise, restart, candidates)
            for _ in range(self.steps):
                values, gradient = value_and_gradient(model, self.objective, x_adv, y)
                if self.keep == "best":
                    best.offer(x_adv, values)
                x_adv = self.region.project(x_adv + self.step_size * self.region.steepest(gradient), x)
            if self.keep == "last" and self.restarts == 1:
                return x_adv
            best.offer(x_adv, value(model, self.objective, x_adv, y))
        return best.x_adv


def begin(start: Start | Attack, region: ThreatModel, x: Tensor, noise: Noise, run: int, candidates: Sequence[Tensor]) -> Tensor:
    """Return the images that a run starts from: the candidate of the attack ``start``, a random point, or the clean image."""
    if candidates:
        return region.project(candidates[0], x)
    return region.start(x, noise, run) if start == "random" else x


def fgsm(objective: Objective, region: ThreatModel, start: Start | Attack = "clean") -> PGD:
    """Return FGSM (Goodfellow et al., ICLR 2015): one step of ``eps``, projected into the ball.

    With ``start="random"`` it is FGSM-RS (Wong et al., ICLR 2020) with a step of ``eps``.
    """
    return PGD(objective, region, steps=1, step_size=region.eps, keep="last", start=start)


class _Best:
    """The iterate with the highest value so far, per sample."""

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        self.values = torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)

    def offer(self, x_adv: Tensor, values: Tensor) -> None:
        # A NaN value is accepted at once: the runner must see it, not a clean image in its place.
        better = ~(values <= self.values)
        self.x_adv = torch.where(column(better, x_adv), x_adv, self.x_adv)
        self.values = torch.where(better, values, self.values)

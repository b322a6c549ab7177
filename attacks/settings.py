"""How the gradient attacks of an evaluation are run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from exitbench.attacks.adaptive import BUDGET
from exitbench.attacks.apgd import APGD, APGDTargeted
from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.objectives import CE, DLR, Loss, Objective, Reduction, TargetedDLR
from exitbench.attacks.pgd import PGD, Keep, Start, fgsm
from exitbench.attacks.regions import Ball, Penalty
from exitbench.attacks.wrm import WRM

CROSS_ENTROPY = CE()

Method = Literal["pgd", "fgsm", "apgd", "wrm"]


@dataclass(frozen=True)
class Settings:
    """How the gradient attacks are run.

    Attributes:
        region: the threat model's ball.
        method: ``pgd``, ``fgsm``, ``apgd`` or ``wrm``.
        loss: the loss at each exit; the targeted one is for APGD alone.
        steps, step_size, restarts, keep: see ``PGD``; FGSM takes one step of ``eps`` from the clean image, APGD sets its own
            steps' sizes, WRM too.
        gamma: price of distance, of WRM.
        budget: gradients per image that ``adaptive`` may spend at most.

    Raises:
        ValueError: a targeted loss with another method than APGD, or restarts of a method that has none.
    """

    region: Ball
    steps: int
    step_size: float
    method: Method = "pgd"
    loss: Loss | TargetedDLR = CROSS_ENTROPY
    restarts: int = 1
    keep: Keep = "best"
    gamma: float = 0.3
    budget: int = BUDGET

    def __post_init__(self) -> None:
        if isinstance(self.loss, TargetedDLR) and self.method != "apgd":
            raise ValueError(f"the targeted DLR loss is for the method apgd, not {self.method}")
        if self.restarts > 1 and (self.method in ("fgsm", "wrm") or isinstance(self.loss, TargetedDLR)):
            raise ValueError(f"restarts are for pgd and untargeted apgd, not {self.method} with {type(self.loss).__name__}")

    def ascend(self, over: Reduction, start: Start | Attack = "random") -> Attack:
        """The method on the objective ``loss`` reduced by ``over``."""
        if isinstance(self.loss, TargetedDLR):
            return APGDTargeted(over, self.region, self.steps, start=start)
        objective = Objective(self.loss, over)
        deterministic_start = "clean" if start == "random" else start
        if self.method == "fgsm":
            return fgsm(objective, self.region, deterministic_start)
        if self.method == "wrm":
            return WRM(objective, Penalty(self.gamma), self.steps, deterministic_start)
        restarts = self.restarts if start == "random" else 1
        if self.method == "apgd":
            return APGD(objective, self.region, self.steps, restarts, start)
        return PGD(objective, self.region, self.steps, self.step_size, restarts, self.keep, start)

    def select(self, attacks: Iterable[Attack], by: Reduction) -> Attack:
        """The best of ``attacks`` by the loss reduced by ``by``."""
        return BestOf(tuple(attacks), Objective(self.untargeted_loss, by))

    @property
    def untargeted_loss(self) -> Loss:
        """The loss, or for a targeted one its untargeted kin."""
        return DLR() if isinstance(self.loss, TargetedDLR) else self.loss

"""The objectives that attacks ascend: functions of logits and labels, per sample; higher is worse for the defender.

An objective is a loss at every exit, reduced over the exits, such as ``Objective(CE(), Mean())``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.models.spec import type_name


def label(part: Loss | TargetedDLR | Reduction) -> str:
    """The name of a loss or reduction in lower case, for summaries."""
    return type_name(type(part)).lower()


class Loss(ABC):
    """A loss at each exit; it maps logits ``(K, B, C)`` and labels ``(B,)`` to ``(K, B)``."""

    @abstractmethod
    def __call__(self, logits: Tensor, y: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class CE(Loss):
    """The cross-entropy, ``L_k = CE(z_k, y)``."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        n_exits, n = logits.shape[:2]
        return F.cross_entropy(logits.flatten(0, 1), y.repeat(n_exits), reduction="none").view(n_exits, n)


@dataclass(frozen=True)
class Margin(Loss):
    """The margin ``max_{c != y} z[c] - z[y]``, positive exactly where the exit misclassifies (Carlini & Wagner, S&P 2017)."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        true, others = _true_and_others(logits, y)
        return others.amax(-1) - true


@dataclass(frozen=True)
class DLR(Loss):
    """The difference of logits ratio (Croce & Hein, ICML 2020, equation 6): the margin over ``z_(1) - z_(3)``.

    Raises:
        ValueError: When called, if there are fewer than three classes: the ratio is then undefined.
    """

    least_classes: ClassVar[int] = 3

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        if logits.shape[-1] < 3:
            raise ValueError(f"the DLR loss needs at least 3 classes, the model has {logits.shape[-1]}; use ce or margin")
        true, others = _true_and_others(logits, y)
        top = logits.topk(3, dim=-1).values
        return (others.amax(-1) - true) / (top[..., 0] - top[..., 2] + 1e-12)


@dataclass(frozen=True)
class TargetedDLR:
    """The targeted DLR (Croce & Hein, ICML 2020, equation 7): ``(z_t - z_y)`` over ``z_(1) - (z_(3) + z_(4)) / 2``.

    Raises:
        ValueError: When called, if there are fewer than four classes: the ratio is then undefined.
    """

    least_classes: ClassVar[int] = 4

    def __call__(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        if logits.shape[-1] < 4:
            raise ValueError(
                f"the targeted DLR loss needs at least 4 classes, the model has {logits.shape[-1]}; use ce or margin"
            )
        top = logits.topk(4, dim=-1).values
        spread = top[..., 0] - (top[..., 2] + top[..., 3]) / 2
        return (_logit_of(target, logits) - _logit_of(y, logits)) / (spread + 1e-12)


def _logit_of(classes: Tensor, logits: Tensor) -> Tensor:
    return logits.gather(-1, classes.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)


def _true_and_others(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the label's logit ``(K, B)``, and all logits with the label's masked out, ``(K, B, C)``."""
    # Not one_hot, which synchronises the device to check that labels are in range.
    is_true = (torch.arange(logits.shape[-1], device=y.device) == y[:, None]).expand_as(logits)
    true = logits.masked_fill(~is_true, 0).sum(-1)
    return true, logits.masked_fill(is_true, -torch.inf)


class Reduction(ABC):
    """A reduction of the exits' losses ``(K, B)`` to one value per sample ``(B,)``."""

    @property
    def upto(self) -> int | None:
        """Last exit needed, 0-based; None for all."""
        return None

    @abstractmethod
    def __call__(self, losses: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Only(Reduction):
    """The loss of one exit; ``exit`` is 1-based."""

    exit: int

    @property
    def upto(self) -> int:
        return self.exit - 1

    def __call__(self, losses: Tensor) -> Tensor:
        return losses[self.exit - 1]


@dataclass(frozen=True)
class Mean(Reduction):
    """The mean loss over the exits."""

    def __call__(self, losses: Tensor) -> Tensor:
        return losses.mean(0)


@dataclass(frozen=True)
class Max(Reduction):
    """The largest loss over the exits."""

    def __call__(self, losses: Tensor) -> Tensor:
        return losses.amax(0)


@dataclass(frozen=True)
class Objective:
    """A loss reduced over the exits; it maps logits ``(K, B, C)`` and labels ``(B,)`` to ``(B,)``.

    Attributes:
        loss: The loss at each exit.
        over: The reduction over the exits.
    """

    loss: Loss | TargetedDLR
    over: Reduction

    @property
    def upto(self) -> int | None:
        """Last exit needed, 0-based; None for all. Stages behind it need not run."""
        return self.over.upto

    def __call__(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the objective ``(B,)``; a targeted loss needs the target classes ``(B,)``.

        Raises:
            ValueError: If the loss is targeted and ``target`` is missing.
        """
        if isinstance(self.loss, Loss):
            return self.over(self.loss(logits, y))
        if target is None:
            raise ValueError(f"{self.loss} needs target classes")
        return self.over(self.loss(logits, y, target))

    def fools(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return whether the exits of the objective are fooled ``(B,)``: the margin, reduced like the loss, is positive."""
        return self.over(Margin()(logits, y)) > 0

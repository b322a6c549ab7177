"""Rounds images to a grid of pixel values in front of a network, as files and cameras do; gradients pass as if it did not."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function

from exitbench.models.early_exit import EarlyExitNet


class OnGrid(nn.Module):
    """A module that rounds every pixel to the nearest multiple of 1/``steps``; its gradient is the identity's (straight-through).

    Without that, rounding has no gradient, and attacks that follow gradients would stand still.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = _StraightThrough.apply(x, self.steps)
        return rounded


class _StraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int) -> Tensor:
        return nearest(x, steps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def nearest(x: Tensor, steps: int) -> Tensor:
    """Return images whose pixels are the multiples of 1/``steps`` in [0, 1] that are nearest to those of ``x``."""
    return (x * steps).round().clamp(0, steps) / steps


def on_grid(model: EarlyExitNet, steps: int | None) -> EarlyExitNet:
    """Return ``model`` with rounding to multiples of 1/``steps`` in front of it, weights shared.

    It is ``model`` itself without a grid, or if it rounds to this one already (``EarlyExitNet.grid``).
    """
    if steps is None or model.grid == steps:
        return model
    found = model.preceded_by(OnGrid(steps))
    found.grid = steps
    found.train(model.training)
    return found

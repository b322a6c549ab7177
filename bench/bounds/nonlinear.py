"""Layers that are not affine, and sums: ReLU, max pooling, addition, concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.bounds.interval import FLOAT64, Interval, gamma
from exitbench.bounds.layer import Layer


@dataclass(frozen=True)
class ReLU(Layer):
    """``max(x, 0)``, exact in fp32.

    Where the input lies in [l, u] with l < 0 < u, it is at most the chord ``u (x - l) / (u - l)``, which a convex function
    does not exceed, and at least ``x`` and at least 0; of these two, the one whose triangle with the chord is smaller is taken
    (CROWN: Zhang et al., NeurIPS 2018, section 3.3). The chord is raised by ``FLOAT64 (u - l)``, more than float64 rounds it
    by.
    """

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(inputs[0].low.clamp_min(0), inputs[0].high.clamp_min(0))

    def backward(self, a: Tensor, inputs: Sequence[Interval], output: Interval) -> tuple[list[Tensor], Tensor]:
        low, high = inputs[0].low, inputs[0].high
        on, unstable = (low >= 0).to(low), (low < 0) & (high > 0)
        width = torch.where(unstable, high - low, 1)
        chord = torch.where(unstable, high / width, on)
        raised = torch.where(unstable, FLOAT64 * width - chord * low, 0)
        below = torch.where(unstable, (high > -low).to(low), on)
        negative = a.clamp_max(0)
        back = a.clamp_min(0) * below[:, None] + negative * chord[:, None]
        return [back], (negative * raised[:, None]).flatten(2).sum(-1)


@dataclass(frozen=True)
class MaxPool(Layer):
    """Max pooling of windows, without dilation; padding never wins.

    The maximum is at least each of its inputs; the one with the largest lower bound is taken. It is at most the largest upper
    bound, and equal to the input whose lower bound no other's upper bound exceeds, if there is one.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    ceil_mode: bool

    def _pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, places = F.max_pool2d(x, self.kernel, self.stride, self.padding, ceil_mode=self.ceil_mode, return_indices=True)
        return values, places

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(self._pooled(inputs[0].low)[0], self._pooled(inputs[0].high)[0])

    def backward(self, a: Tensor, inputs: Sequence[Interval], output: Interval) -> tuple[list[Tensor], Tensor]:
        (given,) = inputs
        best, places = self._pooled(given.low)
        wins = self._others(given.high, places) <= best
        to_place = torch.where(wins[:, None] | (a > 0), a, 0)
        ceiling = output.high + FLOAT64 * output.magnitude
        constant = (torch.where(wins[:, None], 0, a.clamp_max(0)) * ceiling[:, None]).flatten(2).sum(-1)
        back = a.new_zeros((*a.shape[:3], given.low[0, 0].numel()))
        back.scatter_add_(3, places.flatten(2)[:, None].expand(-1, a.shape[1], -1, -1), to_place.flatten(3))
        return [back.view(*a.shape[:3], *given.low.shape[2:])], constant

    def _others(self, high: Tensor, places: Tensor) -> Tensor:
        """Return the largest upper bound in each window, ``(B, C, H, W)``, without that at ``places``."""
        flat = torch.arange(high[0, 0].numel(), dtype=high.dtype, device=high.device).view(1, 1, *high.shape[2:])
        windows, numbers = (self._windows(x, places.shape[2:], outside) for x, outside in ((high, -torch.inf), (flat, -1)))
        chosen = numbers == places.flatten(2)[:, :, None].to(high.dtype)
        return windows.masked_fill(chosen, -torch.inf).amax(2).view(places.shape)

    def _windows(self, x: Tensor, sides: torch.Size, outside: float) -> Tensor:
        """Return the inputs of every window, ``(B, C, kernel, windows)``, of so many rows and columns of windows."""
        (top, left), (batch, channels) = self.padding, x.shape[:2]
        reach = [(n - 1) * step + span for n, step, span in zip(sides, self.stride, self.kernel, strict=True)]
        padded = F.pad(x, (left, reach[1] - x.shape[3] - left, top, reach[0] - x.shape[2] - top), value=outside)
        return F.unfold(padded, self.kernel, stride=self.stride).view(batch, channels, self.kernel[0] * self.kernel[1], -1)


@dataclass(frozen=True)
class Sum(Layer):
    """The sum of two or more tensors of the same shape; a residual connection."""

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(sum_of([each.low for each in inputs]), sum_of([each.high for each in inputs]))

    def error(self, *inputs: Interval) -> Tensor | None:
        return gamma(len(inputs)) * sum_of([each.magnitude for each in inputs])

    def backward(self, a: Tensor, inputs: Sequence[Interval], output: Interval) -> tuple[list[Tensor], Tensor]:
        return [a] * len(inputs), a.new_zeros(a.shape[:2])


@dataclass(frozen=True)
class Concat(Layer):
    """The inputs side by side along a dimension of ``(B, *features)``, counted from 1."""

    dim: int

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(*(torch.cat([getattr(each, end) for each in inputs], self.dim) for end in ("low", "high")))

    def backward(self, a: Tensor, inputs: Sequence[Interval], output: Interval) -> tuple[list[Tensor], Tensor]:
        parts = torch.split(a, [each.low.shape[self.dim] for each in inputs], dim=self.dim + 1)
        return list(parts), a.new_zeros(a.shape[:2])


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total

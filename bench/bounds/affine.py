"""Affine layers: their values, those of their absolute weights, and their transposes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exitbench.bounds.interval import UNDERFLOW, Interval, gamma
from exitbench.bounds.layer import Layer


class Affine(Layer, ABC):
    """A layer ``W a + b`` of one input.

    Attributes:
        rounded: Number of fp32 operations in a row behind an output, at most; 0 for layers that only move values.
    """

    rounded: int = 0

    @abstractmethod
    def linear(self, x: Tensor, *, absolute: bool = False) -> Tensor:
        """Return ``W x``, or ``|W| x``, for ``(B, *features)``."""

    def bias(self, like: Tensor) -> Tensor | None:
        """Return ``b``, in a form that broadcasts with outputs, in the type and on the device of ``like``."""
        return None

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        """Return ``W^T a``: ``a`` is ``(N, *outputs)``, the result ``(N, *shape)``."""
        zeros = torch.zeros((len(a), *shape), dtype=a.dtype, device=a.device)
        pull = torch.func.vjp(self.linear, zeros)[1]
        found: Tensor = pull(a)[0]
        return found

    def error(self, *inputs: Interval) -> Tensor | None:
        """Return a bound ``(B, *outputs)`` of the fp32 error of this layer, None if it is exact."""
        if not self.rounded:
            return None
        magnitude = self.linear(inputs[0].magnitude, absolute=True)
        bias = self.bias(magnitude)
        if bias is not None:
            magnitude = magnitude + bias.abs()
        return gamma(self.rounded) * magnitude + self.rounded * UNDERFLOW

    def interval(self, *inputs: Interval) -> Interval:
        centre, radius = self.linear(inputs[0].centre), self.linear(inputs[0].radius, absolute=True)
        bias = self.bias(centre)
        if bias is not None:
            centre = centre + bias
        return Interval(centre - radius, centre + radius)

    def backward(self, a: Tensor, inputs: Sequence[Interval], output: Interval) -> tuple[list[Tensor], Tensor]:
        rows = a.flatten(0, 1)
        back = self.transposed(rows, inputs[0].low.shape[1:])
        back = back.view(*a.shape[:2], *back.shape[1:])
        bias = self.bias(a)
        constant = a.new_zeros(a.shape[:2]) if bias is None else (a * bias).flatten(2).sum(-1)
        return [back], constant


@dataclass(frozen=True)
class Conv(Affine):
    """A two-dimensional convolution with zero padding."""

    module: nn.Conv2d

    @property
    def rounded(self) -> int:  # type: ignore[override]
        return self.module.weight[0].numel() + 2

    def _weight(self, like: Tensor) -> Tensor:
        return self.module.weight.to(like)

    def linear(self, x: Tensor, *, absolute: bool = False) -> Tensor:
        conv = self.module
        weight = self._weight(x).abs() if absolute else self._weight(x)
        return F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    def bias(self, like: Tensor) -> Tensor | None:
        return None if self.module.bias is None else self.module.bias.to(like).view(-1, 1, 1)

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        conv = self.module
        if isinstance(conv.padding, str):
            return super().transposed(a, shape)
        spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        reached = [
            (o - 1) * s - 2 * p + span for o, s, p, span in zip(a.shape[2:], conv.stride, conv.padding, spans, strict=True)
        ]
        left = [size - r for size, r in zip(shape[1:], reached, strict=True)]
        return F.conv_transpose2d(a, self._weight(a), None, conv.stride, conv.padding, left, conv.groups, conv.dilation)


@dataclass(frozen=True)
class Linear(Affine):
    """A linear layer over the last dimension."""

    module: nn.Linear

    @property
    def rounded(self) -> int:  # type: ignore[override]
        return self.module.in_features + 2

    def linear(self, x: Tensor, *, absolute: bool = False) -> Tensor:
        weight = self.module.weight.to(x)
        return F.linear(x, weight.abs() if absolute else weight)

    def bias(self, like: Tensor) -> Tensor | None:
        return None if self.module.bias is None else self.module.bias.to(like)

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        return a @ self.module.weight.to(a)


@dataclass(frozen=True)
class Scale(Affine):
    """A product with constants, plus constants: eval-mode batch normalisation, normalisation of images, ``mix * x``.

    Attributes:
        factor: Factors that broadcast with features ``(B, *features)``.
        shift: What is added, in the same form; None for nothing.
        unsure: Bound of the magnitude of what is summed on the way to ``shift`` (such as ``factor * mean``), in the same form.
        rounded: Number of fp32 operations in a row.
    """

    factor: Tensor
    shift: Tensor | None = None
    unsure: Tensor | None = None
    rounded: int = 2

    def linear(self, x: Tensor, *, absolute: bool = False) -> Tensor:
        factor = self.factor.to(x)
        return x * (factor.abs() if absolute else factor)

    def bias(self, like: Tensor) -> Tensor | None:
        return None if self.shift is None else self.shift.to(like)

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        return a * self.factor.to(a)

    def error(self, *inputs: Interval) -> Tensor | None:
        found = super().error(*inputs)
        if found is None or self.unsure is None:
            return found
        return found + gamma(self.rounded) * self.unsure.to(found)


@dataclass(frozen=True)
class Mean(Affine):
    """Average pooling, over windows or all of an image.

    Attributes:
        module: What computes it.
        rounded: Number of summands, plus two for the division.
    """

    module: Callable[[Tensor], Tensor]
    rounded: int = 0

    def linear(self, x: Tensor, *, absolute: bool = False) -> Tensor:
        return self.module(x)


@dataclass(frozen=True)
class Reshape(Affine):
    """The same values in another shape, such as flatten: exact.

    Attributes:
        shape: Shape of the output, without the batch.
    """

    shape: tuple[int, ...]

    def linear(self, x: Tensor, *, absolute: bool = False) -> Tensor:
        return x.reshape(len(x), *self.shape)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(self.linear(inputs[0].low), self.linear(inputs[0].high))

    def transposed(self, a: Tensor, shape: torch.Size) -> Tensor:
        return a.reshape(len(a), *shape)

"""The interface of a layer: how it maps intervals forward, and linear lower bounds backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from exitbench.bounds.interval import Interval


class Layer(ABC):
    """A function of the features of one or more layers before it."""

    @abstractmethod
    def interval(self, *inputs: Interval) -> Interval:
        """Return bounds of the exact output, for all inputs in these intervals."""

    def error(self, *inputs: Interval) -> Tensor | None:
        """Return a bound ``(B, *outputs)`` of the fp32 error of this layer; None if it is exact."""
        return None

    @abstractmethod
    def backward(self, a: Tensor, inputs: Sequence[Interval], output: Interval) -> tuple[list[Tensor], Tensor]:
        """Return coefficients of the inputs and a constant, so that ``a . output >= sum(coefficients . inputs) + constant``.

        Args:
            a: Coefficients ``(B, R, *outputs)`` of R rows.
            inputs: Intervals of the inputs, which the relaxation may use.
            output: Interval of the output.

        Returns:
            Coefficients ``(B, R, *inputs)`` of each input, and the constant ``(B, R)``.
        """

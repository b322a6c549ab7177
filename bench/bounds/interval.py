"""Intervals of features, and the bound of the rounding errors that they are widened by.

The network that judges computes in fp32, the bounds are computed in float64. Let ``u = 2^-24`` be the unit roundoff of fp32. A
sum of n products in fp32, in any order, with or without fused multiply-adds, differs from the exact one by at most ``gamma(n)
* sum |a b|``, ``gamma(n) = n u / (1 - n u)`` (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1),
unless a product underflows, which adds at most ``n * 2^-125`` where such products are set to zero. So an affine layer ``W a +
b`` of fan-in n returns, for fp32 inputs ``a``, the exact value and an error of at most ``gamma(n + 2) (|W| |a| + |b|) + (n +
2) 2^-125``; this is what every interval is widened by, with the largest ``|a|`` in it, before the next layer takes it as its
input. Layers that choose or move values (ReLU, max pooling, flatten) are exact.

The bounds themselves are sums in float64 of fewer than ``2^20`` terms, whose relative error is below ``2^20 * 2^-53 = 2^-33``.
That of a layer's centre, radius and error bound, and of the coefficients that backward substitution carries through an affine
layer, is below ``2^-33 (|W| |a| + |b|)``, and ``gamma`` is enlarged by the factor ``INFLATION = 1 + 2^-4``, which adds at least
``3 * 2^-24 * 2^-4 > 2^-27`` of the same sum. Everything else that float64 rounds in a substitution (products with slopes, sums
of coefficients of several readers, the constants of relaxations, the last sum over the pixels) is below ``2^-32 |coefficient|
|value|`` at one of the nodes; ``FLOAT64 = 2^-31`` of it is subtracted at each.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

UNIT = 2.0**-24
INFLATION = 1 + 2.0**-4
FLOAT64 = 2.0**-31
UNDERFLOW = 2.0**-125


@dataclass(frozen=True)
class Interval:
    """Lower and upper bounds of features, ``(B, *features)`` each, ``low <= high``."""

    low: Tensor
    high: Tensor

    @property
    def centre(self) -> Tensor:
        """The middle of each interval."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width of each interval."""
        return (self.high - self.low) / 2

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value in each interval."""
        return self.low.abs().maximum(self.high.abs())

    def intersected(self, other: Interval) -> Interval:
        """Return the interval of what lies in both."""
        return Interval(self.low.maximum(other.low), self.high.minimum(other.high))


def gamma(n: int) -> float:
    """Return Higham's bound of the relative error of ``n`` fp32 operations in a row, enlarged for float64's own."""
    return INFLATION * n * UNIT / (1 - n * UNIT)

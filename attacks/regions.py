"""The regions that attacks search in: balls, and a penalty on the distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from exitbench.attacks.noise import Noise
from exitbench.models.errors import InvalidValue

Norm = Literal["Linf", "L2"]
NORMS: tuple[Norm, ...] = get_args(Norm)

ON_GRID = 1e-3
"""Largest distance of a pixel from the grid, in its steps, that counts as none; fp32 rounds by a tenth of it."""

ROUNDING = {"Linf": 5e-7, "L2": 5e-6}
"""Distance by which a rounded image may exceed its ball, half of what the certification of images allows."""


@dataclass(frozen=True)
class ThreatModel:
    """What an attacker may do to an image: move it within ``eps`` in ``norm``, inside the box [0, 1].

    As the region of an attack it is the ball of that radius around the clean image, intersected with the box.

    Attributes:
        norm: ``Linf`` or ``L2``.
        eps: Radius, for pixels in [0, 1].

    Raises:
        InvalidValue: If the norm is unknown, or ``eps`` is negative or not finite.
    """

    spec_name: ClassVar[str] = "Ball"

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InvalidValue(f"norm {self.norm!r} is not one of {', '.join(NORMS)}")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise InvalidValue(f"eps must be a finite number >= 0, got {self.eps}")

    def start(self, x: Tensor, noise: Noise, restart: int) -> Tensor:
        """Draw a point uniformly in the ball: ``x + U(-eps, eps)`` for Linf; a random direction and radius for L2."""
        if self.norm == "Linf":
            return self.project(x + self.eps * (2 * noise.uniform(x, restart) - 1), x)
        gaussian = noise.normal(x, restart)
        # A uniform point of the d-ball lies at radius eps * U^(1/d).
        radius = self.eps * noise.uniform(x.flatten(1)[:, :1], restart)[:, 0] ** (1 / x[0].numel())
        return self.project(x + _scaled_to(gaussian, radius), x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Project into the ball, then into the box; as ``x`` is in the box, the second step never leaves the ball."""
        delta = x_adv - x
        if self.norm == "Linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            length = _length(delta)
            delta = torch.where(column(length > self.eps, delta), _scaled_to(delta, torch.full_like(length, self.eps)), delta)
        return (x + delta).clamp(0, 1)

    def rounded(self, x_adv: Tensor, x: Tensor, grid: int) -> Tensor:
        """Return images near ``x_adv`` whose pixels are multiples of 1/``grid``, in the ball and the box.

        In Linf each pixel is the nearest one in the ball. In L2 the change is drawn in by as many sixteenths as rounding needs.
        ``x`` takes the place of an image that has no such neighbour, as may be where ``x`` itself is off the grid.
        """
        if self.norm == "Linf":
            least, most = ((x - self.eps) * grid - ON_GRID).ceil(), ((x + self.eps) * grid + ON_GRID).floor()
            tries = [torch.minimum(torch.maximum((x_adv * grid).round(), least), most).clamp(0, grid) / grid]
        else:
            tries = [((x + share / 16 * (x_adv - x)) * grid).round().clamp(0, grid) / grid for share in range(16, -1, -1)]
        found, done = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for near in tries:
            fits = (self.distance(near, x) <= self.eps + ROUNDING[self.norm]) & ~done
            found, done = torch.where(column(fits, x), near, found), done | fits
        return found

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of steepest ascent: the sign for Linf, the unit gradient for L2 (zero where it is zero)."""
        return gradient.sign() if self.norm == "Linf" else _scaled_to(gradient, gradient.new_ones(len(gradient)))

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the distance ``(B,)`` in this ball's norm."""
        delta = x_adv - x
        return delta.abs().flatten(1).amax(1) if self.norm == "Linf" else _length(delta)


Ball = ThreatModel
"""The name of ``ThreatModel`` in 0.1, for attacks of installed packages."""


@dataclass(frozen=True)
class Penalty:
    """A penalty of ``gamma`` times the squared L2 distance, in place of a ball (WRM: Sinha et al., ICLR 2018, equation 2).

    Images are bounded by the box alone. Results are reported with the distance reached; they count in a ball's threat model only
    where they lie in the ball.

    Raises:
        InvalidValue: If ``gamma`` is not a positive finite number.
    """

    gamma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise InvalidValue(f"gamma must be a finite number > 0, got {self.gamma}")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Project into the box [0, 1]."""
        return x_adv.clamp(0, 1)

    def cost(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the penalty ``gamma * ||x_adv - x||^2``, ``(B,)``."""
        return self.gamma * (x_adv - x).square().flatten(1).sum(1)


def _length(delta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length


def column(per_sample: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(B,)`` to as many dimensions as ``like`` ``(B, ...)``, so that the two multiply sample by sample."""
    return per_sample.view(-1, *[1] * (like.ndim - 1))


def _scaled_to(direction: Tensor, length: Tensor) -> Tensor:
    """Scale each row of ``direction`` to ``length``; a zero row stays zero.

    Rows are first scaled to a largest entry of 1: the squares of a saturated loss's gradients vanish in fp32, and a step of zero
    length would look like robustness.
    """
    largest = direction.abs().flatten(1).amax(1)
    direction = direction / column(torch.where(largest > 0, largest, torch.ones_like(largest)), direction)
    norm = _length(direction)
    factor = torch.where(norm > 0, length / norm.clamp_min(1), torch.zeros_like(norm))
    return direction * column(factor, direction)

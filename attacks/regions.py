"""The regions that attacks search in: balls, and a penalty on the distance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from exitbench.attacks.noise import Noise
from exitbench.models.errors import InvalidValue
from exitbench.models.on_grid import nearest
from exitbench.models.spec import WHEN_SET

Norm = Literal["Linf", "L2"]
NORMS: tuple[Norm, ...] = get_args(Norm)

ROUNDING = {"Linf": 5e-7, "L2": 5e-6}
"""Distance by which a rounded image may exceed its ball, half of what the certification of images allows."""

ON_GRID = 2.0**-22
"""Largest distance of a pixel from the grid, or of the grid from a ball, that counts as none: twice what fp32 rounds by, and half
of ``ROUNDING``."""

FINEST = 65535
"""Steps of the finest grid: images of 16 bits. Finer steps are those of fp32 itself."""

_DRAWN_IN = 8
"""Times that a change is drawn in so that it lies in an L2 ball when it is rounded; ``rounded`` draws in what then is outside."""


@dataclass(frozen=True)
class ThreatModel:
    """What an attacker may do to an image: move it within ``eps`` in ``norm``, inside the box [0, 1].

    As the region of an attack it is the ball of that radius around the clean image, intersected with the box. On a grid, only
    images whose pixels are multiples of 1/``grid`` count. Attacks then search in the ball with a network that rounds
    (``exitbench.models.on_grid``), and ``rounded`` turns what they find into an image of the grid.

    Attributes:
        norm: ``Linf`` or ``L2``.
        eps: Radius, for pixels in [0, 1].
        grid: Steps of pixel values between 0 and 1, 255 for images of 8 bits; None for any value.

    Raises:
        InvalidValue: If the norm is unknown, ``eps`` is negative or not finite, or ``grid`` is no whole number of 1..65535.
    """

    spec_name: ClassVar[str] = "Ball"

    norm: Norm
    eps: float
    grid: int | None = field(default=None, metadata=WHEN_SET)

    def __post_init__(self) -> None:
        check_grid(self.grid)
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
        """Project into the ball, then into the box; as ``x`` is in the box, the second step never leaves the ball.

        On a grid, into the part of the ball from which rounding does not lead out; in L2 nearly always so.
        """
        if self.grid is not None:
            return self._into(x_adv, x, self.grid)
        return self._project(x_adv, x)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        if self.norm == "Linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            length = _length(delta)
            delta = torch.where(column(length > self.eps, delta), _scaled_to(delta, torch.full_like(length, self.eps)), delta)
        return (x + delta).clamp(0, 1)

    def _into(self, x_adv: Tensor, x: Tensor, grid: int) -> Tensor:
        if self.norm == "Linf":
            least, most = self._ends(x, grid)
            return torch.minimum(torch.maximum(x_adv, least / grid), most / grid).clamp(0, 1)
        x_adv = self._project(x_adv, x)
        for _ in range(_DRAWN_IN):
            over = _length(nearest(x_adv, grid) - x) / max(self.eps, ROUNDING[self.norm])
            x_adv = x + (x_adv - x) / column(over.clamp_min(1), x)
        return x_adv

    def _ends(self, x: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """Return the first and the last step of the grid in the Linf ball of each pixel."""
        return ((x - self.eps - ON_GRID) * grid).ceil(), ((x + self.eps + ON_GRID) * grid).floor()

    def rounded(self, x_adv: Tensor, x: Tensor, grid: int) -> Tensor:
        """Return images near ``x_adv`` whose pixels are multiples of 1/``grid``, in the ball and the box.

        In Linf each pixel is the nearest one in the ball. In L2 the change is drawn in by as many sixteenths as rounding needs.
        ``x`` takes the place of an image that has no such neighbour, as may be where ``x`` itself is off the grid.
        """
        if self.norm == "Linf":
            least, most = self._ends(x, grid)
            tries = [torch.minimum(torch.maximum((x_adv * grid).round(), least), most).clamp(0, grid) / grid]
        else:
            tries = [nearest(x + share / 16 * (x_adv - x), grid) for share in range(16, -1, -1)]
        found, done = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for near in tries:
            fits = (self.distance(near, x) <= self.eps + ROUNDING[self.norm]) & ~done
            found, done = torch.where(column(fits, x), near, found), done | fits
        return found

    def onto_grid(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return what is judged of candidates: the images themselves, or on a grid, those that ``rounded`` makes of them."""
        return x_adv if self.grid is None else self.rounded(self.project(x_adv, x), x, self.grid)

    def radius(self, x: Tensor) -> float:
        """Return the radius for a search that draws its own ball around images ``(B, ...)`` and knows no grid.

        It is ``eps``, or on a grid what keeps images in the ball when they are rounded: in Linf the last step of the grid within
        ``eps``, and half a step less than ``eps`` where clean images are off the grid; in L2 less by what rounding adds to a
        change of as many pixels, on average and two standard deviations. It is never less than half of ``eps``.
        """
        if self.grid is None:
            return self.eps
        if self.norm == "L2":
            square = self.eps**2 - x[0].numel() / 12 / self.grid**2 - 2 * self.eps / math.sqrt(3) / self.grid
            return max(math.sqrt(max(square, 0.0)), self.eps / 2)
        off = bool((nearest(x, self.grid) - x).abs().max() > ON_GRID)
        floored = math.floor((self.eps + ON_GRID) * self.grid) / self.grid
        return max(self.eps - 0.5 / self.grid, self.eps / 2) if off else min(floored, self.eps)

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

    Attributes:
        gamma: Weight of the squared distance.
        grid: See ``ThreatModel``.

    Raises:
        InvalidValue: If ``gamma`` is not a positive finite number, or ``grid`` is no whole number of 1..65535.
    """

    gamma: float
    grid: int | None = field(default=None, metadata=WHEN_SET)

    def __post_init__(self) -> None:
        check_grid(self.grid)
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise InvalidValue(f"gamma must be a finite number > 0, got {self.gamma}")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Project into the box [0, 1]."""
        return x_adv.clamp(0, 1)

    def onto_grid(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return what is judged of candidates: the images themselves, or the nearest ones on the grid."""
        return x_adv if self.grid is None else nearest(x_adv, self.grid)

    def cost(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the penalty ``gamma * ||x_adv - x||^2``, ``(B,)``."""
        return self.gamma * (x_adv - x).square().flatten(1).sum(1)


def check_grid(grid: int | None) -> None:
    """Check the steps of a grid, None for no grid.

    Raises:
        InvalidValue: If they are no whole number of 1..65535.
    """
    if grid is not None and (type(grid) is not int or not 1 <= grid <= FINEST):
        raise InvalidValue(f"grid must be a whole number of 1..{FINEST}, 255 for images of 8 bits, got {grid!r}")


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

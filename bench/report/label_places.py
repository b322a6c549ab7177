"""Places labels beside the points of a figure such that none overlaps another, a point, or the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DISTANCES = (9, 16, 26, 38, 52, 68)
_DIRECTIONS = (90, 135, 45, 180, 0, 270, 225, 315, 110, 70, 155, 25)
_RADIUS, _GAP = 5.0, 2.0
"""Of points, and around labels, in pixels."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlaps(self, other: Box) -> bool:
        """Return whether they have an inner point in common."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, other: Box) -> bool:
        """Return whether the other contains this one."""
        return other.left <= self.left and self.right <= other.right and other.top <= self.top and self.bottom <= other.bottom


def text_size(text: str, font: float) -> tuple[float, float]:
    """Return about how wide and high a text is, in letters of ``font`` pixels; lines end in newlines."""
    lines = text.split("\n")
    return 0.56 * font * max(map(len, lines)), 1.15 * font * len(lines)


def places(
    labels: Sequence[tuple[float, float, tuple[float, float]]], points: Sequence[tuple[float, float]], inside: Box
) -> list[Box]:
    """Return each label's box: the nearest free place to its point, or else where it covers the fewest points.

    Args:
        labels: Point and size of each label, by importance.
        points: Points that labels must not cover.
        inside: The panel.
    """
    dots = [Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in points]
    taken: list[Box] = []
    for x, y, size in labels:
        best = math.inf
        chosen = _box(x, y, size, _DISTANCES[0], _DIRECTIONS[0])
        for distance, degrees in ((distance, degrees) for distance in _DISTANCES for degrees in _DIRECTIONS):
            box = _box(x, y, size, distance, degrees)
            over = 100 * sum(map(box.overlaps, taken)) + sum(map(box.overlaps, dots))
            cost = 1000 * (not box.within(inside)) + over
            if cost < best:
                best, chosen = cost, box
            if cost == 0:
                break
        taken.append(chosen)
    return taken


def _box(x: float, y: float, size: tuple[float, float], distance: float, degrees: float) -> Box:
    right, up = distance * math.cos(math.radians(degrees)), distance * math.sin(math.radians(degrees))
    width, height = size[0] + 2 * _GAP, size[1] + 2 * _GAP
    centre = x + right + _side(right) * width / 2, y - up - _side(up) * height / 2
    return Box(centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)


def _side(away: float) -> int:
    return 0 if abs(away) < 4 else (1 if away > 0 else -1)

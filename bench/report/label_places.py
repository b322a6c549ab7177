"""Places labels beside the points of a plot such that none overlaps another, a point, or the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

_DISTANCES = (9, 16, 26, 38, 52, 68)
_DIRECTIONS = (90, 135, 45, 180, 0, 270, 225, 315, 110, 70, 155, 25)
_LED_FROM = 16
"""Distance, in points, from which a thin line connects a label to its point."""


@dataclass(frozen=True)
class Name:
    """A point, in data coordinates, and its label."""

    x: float
    y: float
    text: str
    colour: str = "0.15"


def write_names(figure: Figure, axes: Axes, names: Sequence[Name], points: Sequence[tuple[float, float]]) -> None:
    """Write each label at the nearest free place, or else where it covers the fewest points.

    Args:
        figure: The figure, laid out; its size must not change afterwards.
        axes: The axes to write on.
        names: The labels, by importance.
        points: Points, in data coordinates, that labels must not cover.
    """
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    inside = axes.get_window_extent(renderer)
    scale = figure.dpi / 72
    dots = [_around(x, y, 4 * scale) for x, y in map(axes.transData.transform, points)]
    taken: list[Bbox] = []
    for name in names:
        best: tuple[float, float, float, Bbox] | None = None
        for distance, degrees in ((distance, degrees) for distance in _DISTANCES for degrees in _DIRECTIONS):
            away = distance * math.cos(math.radians(degrees)), distance * math.sin(math.radians(degrees))
            label = _label(axes, name, away)
            box = label.get_window_extent(renderer).padded(2 * scale)
            label.remove()
            out = not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
            cost = 1000 * out + 100 * sum(box.overlaps(other) for other in taken) + sum(box.overlaps(dot) for dot in dots)
            if best is None or cost < best[0]:
                best = cost, *away, box
            if cost == 0:
                break
        if best is not None:
            _label(axes, name, best[1:3], led=math.hypot(*best[1:3]) >= _LED_FROM)
            taken.append(best[3])


def _around(x: float, y: float, radius: float) -> Bbox:
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _label(axes: Axes, name: Name, away: tuple[float, float], *, led: bool = False) -> Annotation:
    right, up = away
    label = axes.annotate(
        name.text,
        (name.x, name.y),
        xytext=away,
        textcoords="offset points",
        ha="center" if abs(right) < 4 else ("left" if right > 0 else "right"),
        va="center" if abs(up) < 4 else ("bottom" if up > 0 else "top"),
        fontsize=7.5,
        color=name.colour,
        arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.6, "shrinkA": 0, "shrinkB": 3} if led else None,
        zorder=6,
    )
    label.set_in_layout(False)
    return label

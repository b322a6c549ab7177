"""Makes figures that notebooks display."""

from __future__ import annotations

from matplotlib.figure import Figure

from exitbench.report.style import to_bytes


def shown(figure: Figure) -> Figure:
    """Return the figure such that a notebook displays it, whether or not pyplot's inline backend is active."""
    figure._repr_png_ = lambda: to_bytes(figure, "png")  # type: ignore[attr-defined]
    return figure

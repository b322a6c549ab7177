"""The common style of all plots: leaderboards, sweeps, training curves and the page's charts."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe & Ito's palette: tells points and lines apart for colour-blind readers as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"

SHAPES = {
    "o": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
    "s": "M-.9-.9h1.8v1.8h-1.8z",
    "D": "M0-1.25L1.25 0 0 1.25-1.25 0z",
    "^": "M0-1.1L1.1.9H-1.1z",
    "v": "M0 1.1L1.1-.9H-1.1z",
    "P": "M-.4-1.1h.8v.7h.7v.8h-.7v.7h-.8v-.7h-.7v-.8h.7z",
    "*": "M0-1.3L.31-.42 1.24-.4.5.16.76 1.05 0 .52-.76 1.05-.5.16-1.24-.4-.31-.42z",
    "X": "M-.5-1.1L0-.6.5-1.1 1.1-.5.6 0 1.1.5.5 1.1 0 .6-.5 1.1-1.1.5-.6 0-1.1-.5z",
}
"""The markers as SVG paths about the origin, in units of their radius."""

TINTS = {"clean": COLOURS[0], "attacked": COLOURS[1], "slowed": COLOURS[4]}
"""Colours of the kinds of images, in plots of a single network."""

FLAGGED = {"failure": ("x", 11), "warning": ("$!$", 8), "not checked": ("$?$", 7)}
"""Marker and size of the sign drawn over the hollow marker of flagged results."""

MEANING = {
    "failure": "flagged: not to be believed",
    "warning": "flagged: may be lower",
    "not checked": "trust not checked",
}

RC: dict[Any, Any] = {
    "font.size": 9,
    "figure.titlesize": 11,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "errorbar.capsize": 3,
    "savefig.dpi": 150,
    "svg.hashsalt": "exitbench",
    "svg.fonttype": "path",
}
"""Matplotlib settings, applied by ``styled``."""

_SCREEN = ("backend", "interactive", "toolbar", "webagg", "tk", "macosx", "keymap", "docstring", "timezone", "savefig.directory")
"""Settings of windows and of the session, which are the user's."""

_PLAIN = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith(_SCREEN)}
"""Matplotlib's own settings, before those of a user's matplotlibrc: a plot is the same for everybody, with LaTeX or without."""

styled = matplotlib.rc_context({**_PLAIN, **RC})
"""Decorator of every function that draws."""

WIDTH = 10.5
_WIDE_LABEL = 74  # characters of a legend's entry of which two fit beside each other


def unmathematical(text: str) -> str:
    """Return text that matplotlib draws unchanged: a dollar would begin mathematics."""
    return text.replace("$", r"\$")


def network_style(i: int) -> tuple[str, str]:
    """Return colour and marker of the i-th network of a board; there are 56 different pairs."""
    return COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]


def two_panels(height: float, entries: Sequence[str]) -> tuple[Figure, Axes, Axes]:
    """Two panels side by side that share the axis of cost, with room for a legend of ``entries`` below.

    Args:
        height: of the panels with their titles, in inches.
        entries: texts of the legend.
    """
    rows = math.ceil(len(entries) / columns(entries))
    figure = Figure(figsize=(WIDTH, height + 0.17 * rows), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    return figure, left, right


def columns(entries: Sequence[str]) -> int:
    """Return the number of columns of a legend such that it is not wider than the figure."""
    return 2 if max(map(len, entries), default=0) <= _WIDE_LABEL else 1


def share_axes(axes: Axes, title: str) -> None:
    """Set up the axes of a share (0 to 100 %) against cost."""
    axes.set_title(f"{title} (%), 95 % intervals")
    axes.set_xlabel("mean cost on clean inputs (mmacs)")
    axes.set_ylim(-3, 103)
    axes.set_yticks(range(0, 101, 20))


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], title: str | None = None) -> None:
    """Draw one legend for all panels below them."""
    figure.legend(handles, labels, loc="outside lower center", ncols=columns(labels), title=title, title_fontsize=8)


def sign(kind: str, x: float = math.nan, y: float = math.nan) -> Line2D:
    """Return the sign over the hollow marker of a flagged point, or, without a point, its entry in the legend."""
    marker, size = FLAGGED[kind]
    label = MEANING[kind] if math.isnan(x) else "_sign"
    edge = 0 if marker.startswith("$") else 1.4  # an edge would fill the gap of the exclamation mark
    look: dict[str, Any] = {"marker": marker, "markersize": size, "markeredgewidth": edge, "color": "black"}
    return Line2D([x], [y], linestyle="none", label=label, zorder=5, **look)


@styled
def to_bytes(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """Return the figure as the bytes of a file, the same every time."""
    buffer = io.BytesIO()
    fixed = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=fixed)
    return buffer.getvalue()

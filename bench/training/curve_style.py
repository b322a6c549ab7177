"""The style of the training curve, and the figure as a file that is the same for everybody."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure

RC: dict[Any, Any] = {
    "font.size": 9,
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
    "savefig.dpi": 150,
}
"""Matplotlib settings, applied by ``styled``."""

_SCREEN = ("backend", "interactive", "toolbar", "webagg", "tk", "macosx", "keymap", "docstring", "timezone", "savefig.directory")
"""Settings of windows and of the session, which are the user's."""

_PLAIN = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith(_SCREEN)}
"""Matplotlib's own settings, before those of a user's matplotlibrc: a plot is the same for everybody, with LaTeX or without."""

styled = matplotlib.rc_context({**_PLAIN, **RC})
"""Decorator of every function that draws."""


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Draw a legend in two columns below the axes."""
    figure.legend(handles, labels, loc="outside lower center", ncols=2)


@styled
def to_png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file, the same every time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

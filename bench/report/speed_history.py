"""Draws the history of the suite's speed, from the measurements that ``bench perf --output`` left in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitbench.errors import UserError
from exitbench.perf.compare import figures, read_measurement
from exitbench.report.style import COLOURS, MARKERS, legend_below, styled, to_bytes

PANELS = {
    "forward and gradient, search model, images/s": "search model, images/s",
    "the adaptive attack, gradients/s": "adaptive attack, gradients/s",
    "a whole run, s": "a whole run, s",
}
"""The figures that are drawn, and the labels of their panels."""


@styled
def drawn(folder: Path) -> bytes:
    """Return a PNG of the measurements of a folder by time, a line for each machine and what it measured.

    Raises:
        UserError: If there are no measurements, or a file is none.
    """
    found = [read_measurement(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise UserError(f"{folder} has no measurements (*.json) of `bench perf --output`")
    found.sort(key=lambda each: str(each.get("time", "")))
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
        _panel(axes, found, name, label)
    legend_below(figure, *panels[0].get_legend_handles_labels())
    return to_bytes(figure, "png")


def _panel(axes: Axes, found: list[dict[str, Any]], name: str, label: str) -> None:
    subjects = list(dict.fromkeys(map(_subject, found)))
    for number, subject in enumerate(subjects):
        at = [i for i, each in enumerate(found) if _subject(each) == subject and name in figures(each)]
        values = [figures(found[i])[name][0] for i in at]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(at, values, label=subject, color=colour, marker=marker)
    axes.set(title=label, yscale="log", xlim=(-0.5, len(found) - 0.5))
    axes.set_xticks(range(len(found)), [str(each.get("time", "?"))[:10] for each in found], rotation=45, ha="right")


def _subject(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    return f"{found['model']}, n = {found['n']}, {machine.get('gpu') or machine.get('cpu')}"

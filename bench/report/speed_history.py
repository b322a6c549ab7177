"""Draws the history of the suite's speed, from the measurements that ``bench perf --output`` left in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exitbench.errors import UserError
from exitbench.perf.compare import figures, read_measurement
from exitbench.report.charts.lite import OWN_COLOUR, POINT, Series, drawing, encoded, series_of
from exitbench.report.charts.rows import Row
from exitbench.report.charts.spec import Spec

PANELS = {
    "forward and gradient, search model, images/s": "search model, images/s",
    "the adaptive attack, gradients/s": "adaptive attack, gradients/s",
    "a whole run, s": "a whole run, s",
}
"""The figures that are drawn, and the labels of their panels."""


def drawn(folder: Path) -> bytes:
    """Return a PNG of the measurements of a folder by time, a line for each machine and what it measured.

    Raises:
        UserError: If there are no measurements, or a file is none.
    """
    found = [read_measurement(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise UserError(f"{folder} has no measurements (*.json) of `exitbench perf --output`")
    found.sort(key=lambda each: str(each.get("time", "")))
    series = [series_of(subject, number) for number, subject in enumerate(dict.fromkeys(map(_subject, found)))]
    days = [str(each.get("time", "?"))[:10] for each in found]
    panels = [_panel(rows(found, name, series), label, days, series) for name, label in PANELS.items()]
    return drawing({"hconcat": panels}).to_bytes("png")


def rows(found: Sequence[Mapping[str, Any]], name: str, series: Sequence[Series]) -> list[Row]:
    """Return a row for each measurement that has the figure: its number, its line, the line's colour, and the figure."""
    colours = {each.name: each.colour for each in series}
    return [
        {"at": i, "series": _subject(each), "colour": colours[_subject(each)], "value": figures(each)[name][0]}
        for i, each in enumerate(found)
        if name in figures(each)
    ]


def _panel(values: Sequence[Row], label: str, days: Sequence[str], series: Sequence[Series]) -> Spec:
    words = {"values": list(range(len(days))), "labelExpr": f"{json.dumps(days)}[datum.value]", "labelAngle": -45}
    across = {"field": "at", "type": "quantitative", "scale": {"domain": [-0.5, len(days) - 0.5]}, "title": None, "axis": words}
    up = {"field": "value", "type": "quantitative", "scale": {"type": "log", "nice": False, "padding": 10}, "title": None}
    return {
        "title": label,
        "width": 190,
        "height": 200,
        "data": {"values": list(values)},
        "encoding": {"x": across, "y": up},
        "layer": [
            {"mark": "line", "encoding": {**OWN_COLOUR, "detail": {"field": "series"}}},
            {"mark": POINT, "encoding": encoded(series)},
        ],
    }


def _subject(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    return f"{found['model']}, n = {found['n']}, {machine.get('gpu') or machine.get('cpu')}"

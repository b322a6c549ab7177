"""A comparison as a figure: both accuracies row by row, and their paired difference."""

from __future__ import annotations

from collections.abc import Sequence

from exitbench.analysis.compare.pairs import Comparison
from exitbench.report.charts.drawing import Drawing
from exitbench.report.charts.lite import OWN_COLOUR, POINT, Series, drawing, encoded, series_of
from exitbench.report.charts.looks import Looks, looks_of
from exitbench.report.charts.rows import Row
from exitbench.report.charts.spec import Spec
from exitbench.report.compare.terminal import name_of
from exitbench.report.palette import COLOURS

_ROW, _APART = 30, 6
"""Height of a row, and distance of A and B from its middle, in pixels."""
_PLAIN: Spec = {"grid": False, "ticks": False, "domain": False, "labelPadding": 8}
_TICKS: Spec = {"values": list(range(0, 101, 20))}


def draw_comparison(found: Comparison, looks: Looks | None = None) -> Drawing:
    """Draw both accuracies with Wilson's intervals on the left, and B minus A with Newcombe's on the right, row by row.

    Args:
        found: What to draw.
        looks: Of the networks of their store, so that they look the same in every figure; of these two alone by default. A
            network of one exit is hollow, as everywhere; where both are one network, B alone.
    """
    looks = {**looks_of([found.a, found.b]), **(looks or {})}
    record, other = found.a.record, found.b.record
    same = record.network == other.network
    series = [
        series_of(f"A: {name_of(found.a, found.b)}", looks[record.network], hollow=record.n_exits == 1 and not same),
        series_of(f"B: {name_of(found.b, found.a)}", looks[other.network], hollow=other.n_exits == 1 or same),
    ]
    order = [pair.title for pair in found.pairs]
    title = f"{found.a.dataset_summary}: {record.threat.text}, n = {record.n}"
    rows: Spec = {"field": "row", "type": "nominal", "sort": order, "title": None, "axis": _PLAIN}
    left = {
        "title": "accuracy, %, 95 % intervals",
        "width": 340,
        "height": {"step": _ROW},
        "data": {"values": share_rows(found, series)},
        "encoding": {
            "y": rows,
            "x": {"field": "share", "type": "quantitative", "scale": {"domain": [-3, 103]}, "axis": _TICKS, "title": None},
        },
        "layer": [layer for each, offset in zip(series, (-_APART, _APART), strict=True) for layer in _side(each, series, offset)],
    }
    right = {
        "title": "B - A, points, paired 95 % intervals",
        "width": 300,
        "height": {"step": _ROW},
        "data": {"values": difference_rows(found)},
        "encoding": {
            "y": {**rows, "axis": {**_PLAIN, "labels": False}},
            "x": {"field": "difference", "type": "quantitative", "title": None},
        },
        "layer": [
            {"mark": {"type": "rule", "color": "#999999"}, "encoding": {"x": {"datum": 0}, "y": None}},
            {"mark": "rule", "encoding": {"x": {"field": "low"}, "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "shape": "square", "color": COLOURS[-1], "opacity": 1, "size": 50}},
        ],
    }
    return drawing({"title": {"text": title}, "hconcat": [left, right], "spacing": 30})


def share_rows(found: Comparison, series: Sequence[Series]) -> list[Row]:
    """Return a row for each pair and side: its share and interval in percent."""
    return [
        {
            **{"row": pair.title, "series": side.name, "colour": side.colour},
            **{"share": 100 * count / pair.n, "low": 100 * low, "high": 100 * high},
        }
        for pair in found.pairs
        for side, count, (low, high) in zip(series, (pair.a, pair.b), (pair.share_a, pair.share_b), strict=True)
    ]


def difference_rows(found: Comparison) -> list[Row]:
    """Return a row for each pair: its difference B - A and interval in points."""
    return [
        {"row": pair.title, "difference": 100 * pair.difference, "low": 100 * pair.interval[0], "high": 100 * pair.interval[1]}
        for pair in found.pairs
    ]


def _side(side: Series, series: Sequence[Series], offset: int) -> list[Spec]:
    own = [{"filter": {"field": "series", "equal": side.name}}]
    ends = {"x": {"field": "low"}, "x2": {"field": "high"}}
    return [
        {"transform": own, "mark": {"type": "rule", "yOffset": offset}, "encoding": {**ends, **OWN_COLOUR}},
        {"transform": own, "mark": {**POINT, "yOffset": offset}, "encoding": encoded(series)},
    ]

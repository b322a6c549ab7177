"""One evaluation as a figure: accuracy clean, under each attack, and in the worst case."""

from __future__ import annotations

from exitbench.report.charts.drawing import Drawing
from exitbench.report.charts.lite import OWN_COLOUR, drawing
from exitbench.report.charts.rows import Row
from exitbench.report.palette import COLOURS, TINTS
from exitbench.scoring.evaluation import Evaluation, accuracy
from exitbench.scoring.ranking import WORST
from exitbench.scoring.rows import TITLES, rows_of
from exitbench.store.run_record import CLEAN


def draw_evaluation(evaluation: Evaluation) -> Drawing:
    """Return horizontal bars with 95 % intervals, from clean at the top to the worst case at the bottom."""
    record = evaluation.record
    rows = bar_rows(evaluation)
    order = [row["name"] for row in rows]
    title = f"{record.model}, {evaluation.dataset} {record.threat.text}, n = {evaluation.n}"
    spec = {
        "title": {"text": title, "subtitle": "accuracy under the deployed exit rule, %, with 95 % intervals"},
        "width": 420,
        "height": {"step": 24},
        "data": {"values": rows},
        "encoding": {
            "y": {"field": "name", "type": "nominal", "sort": order, "title": None, "axis": {"ticks": False, "grid": False}},
            "x": {"field": "share", "type": "quantitative", "scale": {"domain": [0, 100]}, "title": None},
        },
        "layer": [
            {"mark": {"type": "bar", "height": 17}, "encoding": OWN_COLOUR},
            {"mark": "rule", "encoding": {"x": {"field": "low"}, "x2": {"field": "high"}}},
        ],
    }
    return drawing(spec)


def bar_rows(evaluation: Evaluation) -> list[Row]:
    """Return a row for each bar: its name, its share with the interval, in percent, and its colour."""
    kinds = {attack.name: "slowed" if attack.is_slowdown else "attacked" for attack in evaluation.attacks}
    tints = {CLEAN: TINTS["clean"], WORST: COLOURS[-1], **{name: TINTS[kind] for name, kind in kinds.items()}}
    found = []
    for name, row in rows_of(evaluation).items():
        share, low, high = (100 * value for value in accuracy(row.right))
        found.append({"name": TITLES.get(name, name), "share": share, "low": low, "high": high, "colour": tints[name]})
    return found

"""The figures of a results folder: a board, and a sweep, clean and worst-case accuracy side by side."""

from __future__ import annotations

from collections.abc import Sequence

from exitbench.analysis.sweep.curve import Curve, Point
from exitbench.models.policy_text import policy_text
from exitbench.report.charts.drawing import Drawing
from exitbench.report.charts.looks import Looks
from exitbench.report.charts.rows import SIGNS, Row, curve_rows, rows_of, shares
from exitbench.report.charts.spec import Chart, Size, coloured, filled
from exitbench.report.page.curves import Interval, Swept, SweptCurve, network_of
from exitbench.report.palette import MEANING
from exitbench.scoring.evaluation import Bools, Evaluation, accuracy

_BARS = "Thin bars: 95 % intervals. Hollow: one exit, or flagged."
_FRONT = "Grey line: what nothing beats in both cost and accuracy."
_PROVEN = "Wide bars: from what is certified up to the worst case."
_SWEPT = (
    "Lines: the same network under other thresholds, from exit 1 alone (left) to the last exit. Only the rules at the markers",
    "were attacked themselves; on the lines the worst case is a looser upper bound. Dotted: no image makes any exit wrong.",
)


def board_figure(evaluations: Sequence[Evaluation], looks: Looks) -> Drawing:
    """Return the figure of a board.

    Args:
        evaluations: Of the board, in the order of rank.
        looks: Of their networks.
    """
    rows = rows_of(evaluations, looks)
    notes = [" ".join([_BARS, _FRONT, *_more(rows)])]
    return _drawn(Chart(rows, title=title_of(evaluations[0]), notes=notes))


def sweep_figure(curves: Sequence[Curve], looks: Looks, title: str = "") -> Drawing:
    """Return the figure of a sweep.

    Args:
        curves: Of one board.
        looks: Of their networks.
        title: Above it; the board's by default.
    """
    owners = list({id(each): each for curve in curves for each in curve.pool.evaluations}.values())
    verdicts = {id(point.evaluation): point for curve in curves for point in curve.deployed}
    rows = [
        {**row, **_judged(verdicts.get(id(each))), "leads": False}
        for each, row in zip(owners, rows_of(owners, looks), strict=True)
    ]
    families: dict[tuple[str, ...], list[SweptCurve]] = {}
    for curve in curves:
        if curve.rule is not None:
            families.setdefault(network_of(curve.pool.record), []).append(swept_curve(curve))
    points, floors = curve_rows(owners, families, looks)
    notes = [" ".join([_BARS, *_more(rows)]), *_SWEPT]
    return _drawn(Chart(rows, points, floors, title=title or title_of(owners[0]), notes=notes))


def title_of(evaluation: Evaluation) -> str:
    """Return the board of an evaluation in words: its dataset and threat model."""
    record = evaluation.record
    return f"{evaluation.dataset_summary}: {record.threat.text}"


def swept_curve(curve: Curve) -> SweptCurve:
    """Return a curve in numbers, as the page reads it from the sweep's table."""
    points = [
        Swept(policy_text(point.policy), point.mmacs, accuracy(point.judged.correct), _share(point.judged.worst))
        for point in curve.family
    ]
    attacked = any(point.judged.worst is not None for point in curve.family)
    return SweptCurve(curve.rule or "", tuple(points), float(curve.any_exit_robust.mean()) if attacked else None)


def _share(correct: Bools | None) -> Interval | None:
    return None if correct is None else accuracy(correct)


def _judged(point: Point | None) -> Row:
    """Return the shares of a deployed rule on all stored images, those that were made against other rules included."""
    if point is None or point.judged.worst is None:
        return {}
    return shares("worst", point.judged.worst)


def _more(rows: Sequence[Row]) -> list[str]:
    signs = {row["sign"] for row in rows}
    proven = [_PROVEN] if any(row.get("certified") is not None for row in rows) else []
    return [*proven, *(f"{SIGNS[kind]} {MEANING[kind]}." for kind in MEANING if SIGNS[kind] in signs)]


def _drawn(chart: Chart) -> Drawing:
    return Drawing(coloured(filled(chart, Size())))

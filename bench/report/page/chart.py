"""A chart as the page carries it: numbers for the script, and the same drawn for readers without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from exitbench.report.charts.axes import COSTS, SHARES, present
from exitbench.report.charts.looks import Looks
from exitbench.report.charts.render import svg_of
from exitbench.report.charts.rows import SIGNS, curve_rows, rows_of
from exitbench.report.charts.spec import Chart, Size, filled, in_html
from exitbench.report.leaderboard.certificate import NOTHING
from exitbench.report.page.curves import Curves
from exitbench.report.palette import MEANING
from exitbench.scoring.evaluation import Evaluation


@dataclass(frozen=True)
class Embedded:
    """A chart in the page.

    Attributes:
        chart: What it shows at first.
        costs, shares: What a reader may put on its axes, in words.
        json: Its rows, curves and floors.
        drawn: The same as SVG; empty where it is not asked for.
        signs: The signs on markers, and what they mean.
        uncertified: Names of the rows of which nothing is certified.
    """

    chart: Chart
    costs: Mapping[str, str]
    shares: Mapping[str, str]
    json: Markup
    drawn: Markup
    signs: Sequence[tuple[str, str]]
    uncertified: Sequence[str]

    @property
    def swept(self) -> bool:
        """Whether there are curves."""
        return bool(self.chart.curves)

    @property
    def proven(self) -> bool:
        """Whether something is certified of some row."""
        return any(row.get("certified") is not None for row in self.chart.rows)


def embedded(evaluations: Sequence[Evaluation], curves: Curves, looks: Looks, *, drawn: bool = False) -> Embedded:
    """Return the chart of a board, or of one of its evaluations.

    Args:
        evaluations: Of one board, in the order of rank.
        curves: Of sweeps.
        looks: Of their networks.
        drawn: Whether to draw it for readers without scripts.
    """
    rows = rows_of(evaluations, looks)
    points, floors = curve_rows(evaluations, curves, looks)
    shares = present(SHARES, rows)
    chart = Chart(rows, points, floors, shares=[name for name in ("clean", "worst") if name in shares])
    svg = svg_of(filled(chart, Size())) if drawn else ""
    kinds = {row["sign"] for row in rows}
    return Embedded(
        chart,
        present(COSTS, rows),
        shares,
        Markup(in_html({"rows": rows, "curves": points, "floors": floors})),  # noqa: S704 - no tag can end the script
        Markup(svg),  # noqa: S704 - Vega escapes the names in it
        [(SIGNS[kind], MEANING[kind]) for kind in MEANING if SIGNS[kind] in kinds],
        [row["label"] for row in rows if row.get("proof") == NOTHING],
    )

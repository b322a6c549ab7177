"""Plots of a sweep: clean and worst-case accuracy against mean cost, a curve per network, deployed rules marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from exitbench.analysis.sweep.curve import Curve, Point
from exitbench.report.leaderboard.flags import verdict
from exitbench.report.leaderboard.table import training_text
from exitbench.report.style import MEANING, legend_below, network_style, share_axes, sign, styled, two_panels
from exitbench.scoring.evaluation import Bools, accuracy

What = Literal["clean", "worst"]

NOTE = (
    "Attacks that know the exit rule were aimed at the deployed rules (markers) alone. On the lines the worst case is a looser "
    "upper bound:\nwhat these attacks and those on single exits find, carried over. Thresholds were set on training images, "
    "costs measured on the evaluated ones."
)


@styled
def draw(curves: Sequence[Curve], title: str) -> Figure:
    """Draw two panels: clean accuracy and worst-case robust accuracy against mean mmacs."""
    extra = _meanings(curves)
    figure, left, right = two_panels(4.4, [*map(_label, curves), *(str(line.get_label()) for line in extra)])
    left.set_xlim(0, 1.06 * max(cost for curve in curves for cost in curve.pool.mmacs))
    panels: tuple[tuple[Axes, What, str], ...]
    panels = (left, "clean", "clean accuracy"), (right, "worst", "worst-case robust accuracy")
    for axes, what, name in panels:
        for i, curve in enumerate(curves):
            _draw(axes, curve, what, *network_style(i))
        share_axes(axes, name)
    handles, labels = left.get_legend_handles_labels()
    legend_below(figure, [*handles, *extra], [*labels, *(str(line.get_label()) for line in extra)], NOTE)
    figure.suptitle(title, parse_math=False)
    return figure


def _draw(axes: Axes, curve: Curve, what: What, colour: str, marker: str) -> None:
    if curve.rule is not None:
        _line(axes, curve, what, colour)
    for i, point in enumerate(curve.deployed):
        judged = point.judged.correct if what == "clean" else point.judged.worst
        if judged is not None:
            label = _label(curve) if curve.rule is None and i == 0 else "_deployed"
            _marked(axes, point, judged, colour, marker, label)


def _line(axes: Axes, curve: Curve, what: What, colour: str) -> None:
    """Draw the line of a family with its band and, for the worst case, the floor of all policies."""
    family = curve.family
    found = [point.judged.correct if what == "clean" else point.judged.worst for point in family]
    shares = [accuracy(judged) for judged in found if judged is not None]
    if len(shares) < len(family):
        return
    x = [point.mmacs for point in family]
    share, low, high = ([100 * value for value in values] for values in zip(*shares, strict=True))
    axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    axes.plot(x, share, color=colour, marker=".", markersize=4, label=_label(curve))
    if what == "worst":
        floor = 100 * float(curve.any_exit_robust.mean())
        axes.plot([x[0], x[-1]], [floor, floor], color=colour, lw=1, ls=":")


def _marked(axes: Axes, point: Point, judged: Bools, colour: str, marker: str, label: str) -> None:
    """Draw a deployed policy with its interval, hollow and with a sign if flagged."""
    share, low, high = (100 * value for value in accuracy(judged))
    kind = "ok" if point.evaluation is None else verdict(point.evaluation)
    axes.errorbar(
        point.mmacs,
        share,
        yerr=[[max(0.0, share - low)], [max(0.0, high - share)]],
        fmt=marker,
        color=colour,
        markersize=8,
        markerfacecolor=colour if kind == "ok" else "white",
        label=label,
        zorder=4,
    )
    if kind != "ok":
        axes.add_line(sign(kind, point.mmacs, share))


def _meanings(curves: Sequence[Curve]) -> list[Line2D]:
    """Return the legend entries that are common to all networks."""
    deployed = Line2D([], [], ls="none", marker="o", color="0.3", markersize=7, label="marker: deployed rule")
    ends = Line2D([], [], marker=".", color="0.3", markersize=4, label="line: from exit 1 alone (left) to the last exit (right)")
    floor = Line2D([], [], ls=":", color="0.3", label="floor under every rule: no stored image makes any exit wrong")
    kinds = {verdict(point.evaluation) for curve in curves for point in curve.deployed if point.evaluation}
    return [deployed, ends, floor, *(sign(kind) for kind in MEANING if kind in kinds)]


def _label(curve: Curve) -> str:
    record = curve.pool.record
    evaluations = curve.pool.evaluations
    partial = "" if any(each.complete and not each.unfinished for each in evaluations) else ", not the whole matrix"
    partial += ", flagged" if any(verdict(each) in ("failure", "warning") for each in evaluations) else ""
    exits = "one exit" if curve.rule is None else f"{curve.rule} thresholds"
    return f"{record.model} ({training_text(record)}, {exits}, n = {record.n}{partial})"

"""Pareto plots: clean and worst-case robust accuracy against mean cost, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitbench.report.leaderboard.flags import verdict
from exitbench.report.leaderboard.table import training_text
from exitbench.report.style import MEANING, legend_below, network_style, share_axes, sign, styled, two_panels
from exitbench.scoring.evaluation import Evaluation, accuracy

NAMED = 20
"""On a board with more networks than this, only those on a front are named; the others are grey."""
GREY = ("0.7", ".")


@dataclass(frozen=True)
class Point:
    """One model on the plot: mean cost on clean inputs, share and its interval, and what trust checks say (``SIGNS``).

    ``at_least`` is of a model whose cost is a lower bound.
    """

    label: str
    mmacs: float
    share: float
    low: float
    high: float
    multi_exit: bool
    kind: str = "ok"
    at_least: bool = False


def points(evaluations: Sequence[Evaluation], what: Literal["clean", "worst"]) -> list[Point]:
    """Return a point for each evaluation that has the figure."""
    found = []
    for evaluation in evaluations:
        if what == "worst" and not evaluation.attacked:
            continue
        share, low, high = accuracy(evaluation.clean.correct if what == "clean" else evaluation.worst)
        multi_exit = evaluation.record.n_exits > 1
        cost = evaluation.mean_cost(evaluation.clean)
        found.append(
            Point(_label(evaluation), cost, share, low, high, multi_exit, verdict(evaluation), bool(evaluation.uncounted))
        )
    return found


def pareto_front(candidates: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both cost and accuracy, cheapest first.

    One that cannot be believed, or whose cost is a lower bound, beats none.
    """
    front: list[Point] = []
    believable = [point for point in candidates if point.kind != "failure" and not point.at_least]
    for point in sorted(believable, key=lambda p: (p.mmacs, -p.share)):
        if not front or point.share > front[-1].share:
            front.append(point)
    return front


@styled
def draw(evaluations: Sequence[Evaluation], title: str) -> Figure:
    """Draw two panels: clean accuracy and worst-case robust accuracy against mean mmacs."""
    clean, worst = points(evaluations, "clean"), points(evaluations, "worst")
    named = [point.label for point in clean]
    if len(clean) > NAMED:
        fronts = {point.label for found in (clean, worst) for point in pareto_front(found)}
        named = [label for label in named if label in fronts]
    styles = {label: network_style(i) for i, label in enumerate(dict.fromkeys(named))}
    flagged = [kind for kind in MEANING if any(point.kind == kind for point in clean)]
    entries = [*styles, *(MEANING[kind] for kind in flagged)]
    figure, left, right = two_panels(4.1, entries)
    left.set_xlim(0, 1.12 * max((point.mmacs for point in clean), default=1))
    _panel(left, clean, styles, "clean accuracy")
    _panel(right, worst, styles, "worst-case robust accuracy")
    handles, labels = left.get_legend_handles_labels()
    legend_below(figure, [*handles, *(sign(kind) for kind in flagged)], [*labels, *(MEANING[kind] for kind in flagged)])
    figure.suptitle(title, parse_math=False)
    return figure


def _panel(axes: Axes, found: Sequence[Point], styles: dict[str, tuple[str, str]], title: str) -> None:
    front = pareto_front(found)
    axes.step([p.mmacs for p in front], [100 * p.share for p in front], where="post", color="0.75", lw=1.5, zorder=1)
    for point in found:
        colour, marker = styles.get(point.label, GREY)
        errors = [[100 * max(0.0, point.share - point.low)], [100 * max(0.0, point.high - point.share)]]
        axes.errorbar(
            point.mmacs,
            100 * point.share,
            yerr=errors,
            fmt=marker,
            color=colour,
            markersize=7,
            label=point.label if point.label in styles else "_unnamed",
            markerfacecolor=colour if point.multi_exit and point.kind == "ok" else "white",
        )
        if point.kind != "ok":
            axes.add_line(sign(point.kind, point.mmacs, 100 * point.share))
    share_axes(axes, title)


def _label(evaluation: Evaluation) -> str:
    record = evaluation.record
    kind, _, _ = record.policy.partition(":")
    partial = "" if evaluation.complete and not evaluation.unfinished else ", not the whole matrix"
    partial += ", flagged" if verdict(evaluation) in ("failure", "warning") else ""
    exits = f", {kind} policy" if record.n_exits > 1 else ", one exit"
    exits += f", {evaluation.sparsity:.0%} zero weights" if evaluation.sparsity else ""
    exits += ", cost a lower bound" if evaluation.uncounted else ""
    return f"{record.model} ({training_text(record)}{exits}, n = {record.n}{partial})"

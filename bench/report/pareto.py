"""Pareto plots: clean and worst-case robust accuracy against mean cost, with intervals."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.trust_text import verdict
from bench.verdicts import Evaluation, accuracy

# Okabe & Ito's palette: tells the points apart for colour-blind readers as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"

# Drawn over the hollow marker of what trust checks flag: marker and its size.
_FLAGGED = {"failure": ("x", 11), "warning": ("$!$", 5), "not checked": ("$?$", 5)}
_MEANING = {
    "failure": "flagged: not to be believed",
    "warning": "flagged: may be lower",
    "not checked": "trust not checked",
}


@dataclass(frozen=True)
class Point:
    """One model on the plot: mean cost on clean inputs, share and its interval, and what trust checks say (``SIGNS``)."""

    label: str
    mmacs: float
    share: float
    low: float
    high: float
    multi_exit: bool
    kind: str = "ok"


def points(evaluations: Sequence[Evaluation], what: Literal["clean", "worst"]) -> list[Point]:
    """A point for each evaluation that has the figure."""
    found = []
    for evaluation in evaluations:
        if what == "worst" and not (evaluation.attacks or evaluation.unfinished):
            continue
        share, low, high = accuracy(evaluation.clean.correct if what == "clean" else evaluation.worst)
        multi_exit = len(evaluation.record["mmacs"]) > 1
        cost = evaluation.mean_cost(evaluation.clean)
        found.append(Point(_label(evaluation), cost, share, low, high, multi_exit, verdict(evaluation)))
    return found


def pareto_front(candidates: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both cost and accuracy, cheapest first; one that cannot be believed beats none."""
    front: list[Point] = []
    believable = [point for point in candidates if point.kind != "failure"]
    for point in sorted(believable, key=lambda p: (p.mmacs, -p.share)):
        if not front or point.share > front[-1].share:
            front.append(point)
    return front


def draw(evaluations: Sequence[Evaluation], title: str) -> Figure:
    """Two panels side by side: clean accuracy and worst-case robust accuracy against mean mmacs."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    left.set_xlim(0, 1.12 * max((point.mmacs for point in points(evaluations, "clean")), default=1))
    styles = {_label(e): (COLOURS[i % 7], MARKERS[i % 8]) for i, e in enumerate(evaluations)}
    _panel(left, points(evaluations, "clean"), styles, "clean accuracy")
    _panel(right, points(evaluations, "worst"), styles, "worst-case robust accuracy")
    handles, labels = left.get_legend_handles_labels()
    flagged = [kind for kind in _MEANING if any(point.kind == kind for point in points(evaluations, "clean"))]
    handles += [_sign(kind) for kind in flagged]
    labels += [_MEANING[kind] for kind in flagged]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def _panel(axes: Axes, found: Sequence[Point], styles: dict[str, tuple[str, str]], title: str) -> None:
    front = pareto_front(found)
    axes.step([p.mmacs for p in front], [100 * p.share for p in front], where="post", color="0.75", lw=1.5, zorder=1)
    for point in found:
        colour, marker = styles[point.label]
        errors = [[100 * max(0.0, point.share - point.low)], [100 * max(0.0, point.high - point.share)]]
        axes.errorbar(
            point.mmacs,
            100 * point.share,
            yerr=errors,
            fmt=marker,
            color=colour,
            capsize=3,
            markersize=7,
            label=point.label,
            markerfacecolor=colour if point.multi_exit and point.kind == "ok" else "white",
        )
        if point.kind != "ok":
            axes.add_line(_sign(point.kind, point.mmacs, 100 * point.share))
    axes.set_title(f"{title} (%), 95 % intervals", fontsize=10)
    axes.set_xlabel("mean cost on clean inputs (mmacs)")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.25)


def _sign(kind: str, x: float = math.nan, y: float = math.nan) -> Line2D:
    """The sign across the hollow marker of a flagged point; with no point, its entry in the legend."""
    marker, size = _FLAGGED[kind]
    label = _MEANING[kind] if math.isnan(x) else "_sign"
    return Line2D([x], [y], linestyle="none", color="black", marker=marker, markersize=size, label=label, zorder=5)


def _label(evaluation: Evaluation) -> str:
    record = evaluation.record
    kind, _, _ = record["policy"].partition(":")
    partial = "" if evaluation.complete and not evaluation.unfinished else ", not the whole matrix"
    partial += ", flagged" if verdict(evaluation) in ("failure", "warning") else ""
    exits = f", {kind} policy" if len(record["mmacs"]) > 1 else ", one exit"
    return f"{record['model']} ({record['training']}{exits}, n = {record['n']}{partial})"


def to_bytes(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file, the same bytes every time."""
    buffer = io.BytesIO()
    fixed = {"Date": None} if kind == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "exitbench", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=fixed)
    return buffer.getvalue()

"""RobustBench's leaderboard against cost: what is published, its Pareto front, and our measured networks on it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from exitbench.analysis.robustbench.join import DATASET, CostAxis, Costed
from exitbench.data.cards import dataset_card
from exitbench.models.number_text import eps_text
from exitbench.report.label_places import Name, write_names
from exitbench.report.leaderboard.flags import verdict
from exitbench.report.robustbench.table import autoattack_accuracy
from exitbench.report.style import MEANING, WIDTH, columns, legend_below, network_style, sign, styled
from exitbench.scoring.evaluation import Evaluation, accuracy

_PUBLISHED = {
    "plain": ("o", "#7F8C9A", "published (RobustBench)"),
    "data": ("^", "#7F8C9A", "published, trained on additional data"),
    "unreliable": ("x", "#B9C0C7", "published, unreliable by RobustBench"),
}
_HEIGHT = 5.8  # without the legend, inches
_FRONT = "#2B3A4A"

NOTE = (
    "Published: the lowest robust accuracy that RobustBench knows (AutoAttack, or less where others found less), 10,000 test "
    "images; mmacs\nof one image, counted here from the architecture. Here: measured on the first n test images, 95 % intervals; "
    "the worst case over all\nattacks is stricter than AutoAttack; mmacs are the mean on clean images."
)


@styled
def draw(axis: CostAxis) -> Figure:
    """Robust accuracy in per cent against mmacs, on a logarithmic axis."""
    figure = Figure(figsize=(WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    counted = [costed for costed in axis.published if costed.mmacs is not None]
    spots = _draw_published(axes, counted)
    front = axis.front
    _draw_front(axes, front)
    spots += _draw_measured(axes, axis.measured)
    _frame(axes, spots)
    eps = eps_text(dataset_card(DATASET).eps[axis.norm])
    figure.suptitle(f"Robust accuracy against cost: CIFAR-10, {axis.norm} {eps}")
    handles = [*axes.get_legend_handles_labels()[0], *_signs(axis.measured)]
    labels = [str(handle.get_label()) for handle in handles]
    figure.set_figheight(_HEIGHT + 0.17 * math.ceil(len(labels) / columns(labels)))
    legend_below(figure, handles, labels, NOTE)
    names = [Name(costed.mmacs or 0.0, 100 * costed.entry.robust, short_name(costed), _FRONT) for costed in front]
    write_names(figure, axes, names, spots)
    return figure


def short_name(costed: Costed) -> str:
    """First author and year, and the architecture where it is told: ``Wang2023, WRN-28-10``."""
    entry = costed.entry
    who = re.match(r"[^\W\d_]+\d{4}", entry.model_id)
    architecture = entry.texts.get("architecture", "").replace("WideResNet", "WRN").replace("ResNet", "RN")
    name = who.group() if who else entry.model_id
    return f"{name}\n{architecture}" if architecture else name


def _kind(costed: Costed) -> str:
    if costed.entry.unreliable:
        return "unreliable"
    return "data" if costed.entry.texts.get("additional_data", "").lower() == "true" else "plain"


def _draw_published(axes: Axes, counted: Sequence[Costed]) -> list[tuple[float, float]]:
    spots = []
    for kind, (marker, colour, label) in _PUBLISHED.items():
        some = [(costed.mmacs or 0.0, 100 * costed.entry.robust) for costed in counted if _kind(costed) == kind]
        if some:
            x, y = zip(*some, strict=True)
            axes.plot(
                x, y, ls="none", marker=marker, color=colour, ms=5, mec="white" if kind != "unreliable" else colour, mew=0.6
            )
            axes.lines[-1].set_label(label)
        spots += some
    return spots


def _draw_front(axes: Axes, front: Sequence[Costed]) -> None:
    x, y = [costed.mmacs or 0.0 for costed in front], [100 * costed.entry.robust for costed in front]
    axes.step(x, y, where="post", color=_FRONT, lw=1.3, zorder=2, label="Pareto front of the published")
    for costed, at, height in zip(front, x, y, strict=True):
        axes.plot([at], [height], ls="none", marker=_PUBLISHED[_kind(costed)][0], color=_FRONT, ms=6.5, zorder=4)


def _draw_measured(axes: Axes, measured: Sequence[Evaluation]) -> list[tuple[float, float]]:
    """Each network's worst case with its interval, and hollow above it what AutoAttack alone leaves."""
    spots = []
    alone = False
    for i, evaluation in enumerate(measured):
        colour, marker = network_style(i)
        x, kind = evaluation.mean_cost(evaluation.clean), verdict(evaluation)
        share, low, high = (100 * value for value in accuracy(evaluation.worst))
        axes.errorbar(
            x,
            share,
            yerr=[[max(0.0, share - low)], [max(0.0, high - share)]],
            fmt=marker,
            color=colour,
            markersize=7.5,
            markerfacecolor=colour if kind == "ok" else "white",
            label=_label(evaluation, measured),
            zorder=5,
        )
        if kind != "ok":
            axes.add_line(sign(kind, x, share))
        spots.append((x, share))
        if (autoattack := autoattack_accuracy(evaluation)) is not None:
            axes.plot([x, x], [share, 100 * autoattack], color=colour, lw=0.8, ls=":", zorder=3)
            axes.plot([x], [100 * autoattack], ls="none", marker=marker, mfc="white", mec=colour, ms=5.5, zorder=4)
            spots.append((x, 100 * autoattack))
            alone = True
    if alone:
        axes.plot([], [], ls="none", marker="o", mfc="white", mec="0.3", ms=5.5, label="small and hollow: here, AutoAttack alone")
    return spots


def _signs(measured: Sequence[Evaluation]) -> list[Line2D]:
    kinds = {verdict(evaluation) for evaluation in measured}
    return [sign(kind) for kind in MEANING if kind in kinds]


def _label(evaluation: Evaluation, among: Sequence[Evaluation]) -> str:
    """Names the network; its exit rule, too, where only that tells it from another."""
    record = evaluation.record
    same = [
        each for each in among if (each.record.model, each.record.training, each.n) == (record.model, record.training, record.n)
    ]
    rule = f", {record.policy[:24]}..." if len(same) > 1 else ""
    partial = "" if evaluation.complete and not evaluation.unfinished else ", not the whole matrix"
    exits = "one exit" if record.n_exits == 1 else f"{record.n_exits} exits"
    return f"here: {record.model} ({record.training}, {exits}, n = {record.n}{partial}{rule})"


def _frame(axes: Axes, spots: Sequence[tuple[float, float]]) -> None:
    costs = [x for x, _ in spots] or [1.0]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.6, max(costs) * 1.9)
    axes.set_ylim(-3, 8 + max((y for _, y in spots), default=92))
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("cost of one image (mmacs: 10⁶ multiply-accumulates, logarithmic)")
    axes.set_ylabel("robust accuracy (%)")

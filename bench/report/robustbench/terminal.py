"""The terminal summary of RobustBench's leaderboard with a cost axis."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exitbench.analysis.robustbench.join import DATASET, CostAxis
from exitbench.report.plain_text import line
from exitbench.report.robustbench.table import autoattack_accuracy
from exitbench.scoring.evaluation import accuracy
from exitbench.scoring.ranking import partial_status


def cost_axis_text(axis: CostAxis) -> Group:
    """How much was counted, the published front, what was measured here, and what could not be counted."""
    counted = sum(costed.mmacs is not None for costed in axis.published)
    heading = f"RobustBench, {DATASET} {axis.norm}: {len(axis.published)} published networks, {counted} with their cost"
    parts: list[RenderableType] = [line(heading, "bold"), line("the Pareto front of the published:"), _front(axis)]
    if axis.measured:
        parts += [line("measured here (interval: 95 %):"), _measured(axis)]
    else:
        parts.append(line("the store holds no attacked network of this threat model", "dim"))
    return Group(*parts, *_missing(axis))


def _front(axis: CostAxis) -> Table:
    table = _table("mmacs", "clean %", "robust %", "published network")
    for costed in axis.front:
        entry, what = costed.entry, costed.entry.texts.get("architecture", "")
        name = f"{entry.model_id} ({what})" if what else entry.model_id
        table.add_row(f"{costed.mmacs:,.0f}", f"{100 * entry.clean:.2f}", f"{100 * entry.robust:.2f}", line(name))
    return table


def _measured(axis: CostAxis) -> Table:
    table = _table("mmacs", "clean %", "AutoAttack %", "worst case %", "interval", "n", "measured network")
    for evaluation in axis.measured:
        record, autoattack = evaluation.record, autoattack_accuracy(evaluation)
        share, low, high = accuracy(evaluation.worst)
        partial = f", {status}" if (status := partial_status(evaluation)) else ""
        table.add_row(
            f"{evaluation.mean_cost(evaluation.clean):,.1f}",
            f"{100 * accuracy(evaluation.clean.correct)[0]:.2f}",
            "-" if autoattack is None else f"{100 * autoattack:.2f}",
            f"{100 * share:.2f}",
            f"{100 * low:.1f} - {100 * high:.1f}",
            str(record.n),
            line(f"{record.model} ({record.training}{partial})"),
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings[:-1]:
        table.add_column(heading, justify="right")
    table.add_column(headings[-1], overflow="fold")
    return table


def _missing(axis: CostAxis) -> list[Text]:
    """Everything without a cost, by reason, and what the zoo holds beyond what is published."""
    reasons: dict[str, list[str]] = {}
    for costed in axis.published:
        if costed.mmacs is None:
            reasons.setdefault(costed.status, []).append(costed.entry.model_id)
    lines = [f"no cost, {reason}: {', '.join(names)}" for reason, names in reasons.items()]
    if axis.unpublished:
        lines.append(f"in the zoo, but without published accuracies: {', '.join(axis.unpublished)}")
    return [line(each, "dim") for each in lines]

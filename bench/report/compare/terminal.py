"""A comparison in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from exitbench.analysis.compare.pairs import Comparison, Interval, Pair
from exitbench.report.leaderboard.flags import verdict
from exitbench.report.plain_text import cell, line
from exitbench.scoring.evaluation import Evaluation


def name_of(evaluation: Evaluation, other: Evaluation) -> str:
    """Return a name that distinguishes an evaluation from the other: model and training, or else weights, policy or seed."""
    record, beside = evaluation.record, other.record
    name = f"{record.model} ({record.training})"
    if (record.model, record.training) != (beside.model, beside.training):
        return name
    if record.weights != beside.weights:
        return f"{name}, weights {record.weights[:12]}"
    if record.policy != beside.policy:
        return f"{name}, {record.policy if len(record.policy) < 30 else record.policy[:27] + '...'}"
    return f"{name}, seed {record.seed}"


def comparison_text(found: Comparison) -> RenderableType:
    """Return the table of both, with notes on its meaning and on what is left out."""
    record = found.a.record
    threat = record.threat.text
    title = f"{record.dataset} test, {threat}, n = {record.n}, paired sample by sample"
    table = Table(box=None, pad_edge=False)
    table.add_column("accuracy", overflow="fold", min_width=len("worst case"))
    for heading in ("A %", "B %", "B - A", "95 % interval", "only A", "only B", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    costs = Table(box=None, pad_edge=False)
    costs.add_column("mean mmacs", overflow="fold", min_width=len("worst case"))
    for heading in ("A", "B", "B - A", "95 % interval"):
        costs.add_column(heading, justify="right", no_wrap=True)
    for pair in found.pairs:
        table.add_row(cell(pair.title), *_accuracy(pair))
        if pair.mmacs is not None and pair.mmacs_interval is not None:
            costs.add_row(cell(pair.title), *_cost(pair.mmacs, pair.mmacs_interval))
    named = [f"A: {name_of(found.a, found.b)}", f"B: {name_of(found.b, found.a)}"]
    notes = [
        "only A, only B: samples that only one of them gets right; p: exact McNemar test, two-sided, each row on its own",
        "intervals of the difference: Newcombe's method 10 for accuracies, the normal approximation for mean mmacs",
    ]
    if found.apart:
        notes.append(f"left out of the worst case, as only one of the two has it in this form: {', '.join(found.apart)}")
    for letter, each in (("A", found.a), ("B", found.b)):
        if verdict(each) != "ok":
            notes.append(f"{letter}: trust checks: {verdict(each)}; see `exitbench report`")
    return Group(line(title, "bold"), *map(line, named), table, costs, *(line(note, "dim") for note in notes))


def _accuracy(pair: Pair) -> tuple[str, ...]:
    shares = (f"{100 * count / pair.n:.2f}" for count in (pair.a, pair.b))
    low, high = (100 * end for end in pair.interval)
    counts = str(pair.only_a), str(pair.only_b)
    return (*shares, f"{100 * pair.difference:+.2f}", f"{low:+.1f} .. {high:+.1f}", *counts, _chance(pair.p))


def _chance(p: float) -> str:
    """Return a p-value as short text, so that attacks' names fit in a line of 80 columns."""
    return f"{p:.2g}" if p >= 0.001 else f"{p:.0e}"


def _cost(means: Interval, interval: Interval) -> tuple[str, ...]:
    (a, b), (low, high) = means, interval
    return f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}", f"{low:+.2f} .. {high:+.2f}"

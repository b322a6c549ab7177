"""The columns of a paper's table: what each holds, how it is headed, and which value in it is the best."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from exitbench.errors import UserError
from exitbench.models.errors import UnknownName
from exitbench.models.registry import model_card
from exitbench.report.leaderboard.table import training_text
from exitbench.scoring.evaluation import Bools, Evaluation, Result, accuracy
from exitbench.stats.proportions import wilson

Best = Literal["highest", "lowest"]


@dataclass(frozen=True)
class Value:
    """What stands in a cell.

    Attributes:
        text: the figure, or a word.
        order: what is compared where the best is looked for; None for what is not compared.
        interval: the ends of the 95 % interval; empty where there is none.
        at_least: whether the truth may be larger: a cost that could not be counted whole.
        markup: whether the text is LaTeX or Markdown already.
    """

    text: str
    order: float | None = None
    interval: tuple[str, ...] = ()
    at_least: bool = False
    markup: bool = False


NOTHING = Value("-")
"""Stands where there is no figure."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: what ``--columns`` calls it.
        heading: its heading, without the unit.
        value: what it holds of an evaluation.
        unit: of its figures; empty for words and counts.
        best: which figure is the best; None where none is.
    """

    name: str
    heading: str
    value: Callable[[Evaluation], Value]
    unit: str = ""
    best: Best | None = None


def _share(correct: Bools) -> Value:
    share, low, high = accuracy(correct)
    return Value(_percent(share), share, (_percent(low), _percent(high)))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _figure(value: float | None, *, at_least: bool = False) -> Value:
    """Return a cost or a time with three digits at least."""
    if value is None:
        return NOTHING
    return Value(f"{value:.1f}" if value >= 10 else f"{value:.3g}", value, at_least=at_least)


def _cost(evaluation: Evaluation) -> Value:
    return _figure(evaluation.mean_cost(evaluation.clean), at_least=bool(evaluation.uncounted))


def _cost_dense(evaluation: Evaluation) -> Value:
    return _figure(evaluation.mean_cost(evaluation.clean, "mmacs_dense"), at_least=bool(evaluation.uncounted))


def _worst(evaluation: Evaluation) -> Value:
    return _share(evaluation.worst) if evaluation.attacked else NOTHING


def _certified(evaluation: Evaluation) -> Value:
    if evaluation.certificate is None:
        return NOTHING
    right, n = len(evaluation.certificate.proven.right), evaluation.n
    return Value(_percent(right / n), right / n, tuple(_percent(end) for end in wilson(right, n)))


def _certified_cost(evaluation: Evaluation) -> Value:
    return NOTHING if evaluation.certificate is None else _figure(evaluation.certificate.cost())


def costliest(evaluation: Evaluation) -> Result | None:
    """Return the slowdown attack under which images cost most; None where there is none."""
    slowdowns = [attack for attack in evaluation.attacks if attack.is_slowdown]
    return max(slowdowns, key=evaluation.mean_cost, default=None)


def _slowdown(evaluation: Evaluation) -> Value:
    found = costliest(evaluation)
    return NOTHING if found is None else _figure(evaluation.mean_cost(found), at_least=bool(evaluation.uncounted))


def _lost(evaluation: Evaluation) -> Value:
    found = costliest(evaluation)
    lost = evaluation.slowed(found).savings_erased if found else None
    return NOTHING if lost is None else Value(_percent(lost), lost)


def _strongest(evaluation: Evaluation) -> Value:
    found = evaluation.strongest()
    return NOTHING if found is None else Value(found.name)


def _sparsity(evaluation: Evaluation) -> Value:
    return Value(_percent(evaluation.sparsity), evaluation.sparsity) if evaluation.sparsity else NOTHING


def _title(model: str) -> str:
    """Return the name of an architecture for readers; that of reports where it has none."""
    try:
        return model_card(model).title or model
    except UnknownName:
        return model


def _rule(evaluation: Evaluation) -> Value:
    return Value(evaluation.record.policy.partition(":")[0]) if evaluation.record.n_exits > 1 else NOTHING


_MACS, _SHARE = "MMACs", "%"

COLUMNS = {
    column.name: column
    for column in (
        Column("network", "Network", lambda each: Value(_title(each.record.model))),
        Column("training", "Training", lambda each: Value(training_text(each.record))),
        Column("rule", "Exit rule", _rule),
        Column("exits", "Exits", lambda each: Value(str(each.record.n_exits))),
        Column("n", "Images", lambda each: Value(str(each.n))),
        Column("cost", "Cost", _cost, _MACS, "lowest"),
        Column("cost_dense", "Cost, zeros counted", _cost_dense, _MACS, "lowest"),
        Column("latency", "Latency", lambda each: _figure(each.mean_latency(each.clean)), "ms", "lowest"),
        Column("sparsity", "Zero weights", _sparsity, _SHARE),
        Column("clean", "Clean", lambda each: _share(each.clean.correct), _SHARE, "highest"),
        Column("worst", "Worst case", _worst, _SHARE, "highest"),
        Column("certified", "Certified", _certified, _SHARE, "highest"),
        Column("certified_cost", "Certified cost", _certified_cost, _MACS, "lowest"),
        Column("slowdown", "Cost under slowdown", _slowdown, _MACS, "lowest"),
        Column("savings_lost", "Savings lost", _lost, _SHARE, "lowest"),
        Column("strongest", "Strongest attack", _strongest),
    )
}
"""Every column but those of single attacks, which have the attack's name."""


def default_columns(board: Sequence[Evaluation]) -> list[Column]:
    """Return the columns of a table for which none were chosen: those that say something of the networks of a board."""
    names = ["network"]
    names += ["training"] if len({each.record.training for each in board}) > 1 else []
    rules = {_rule(each).text for each in board if each.record.n_exits > 1}
    names += ["rule"] if len(rules) > 1 else []
    names += ["exits", *(["n"] if len({each.n for each in board}) > 1 else []), "cost", "clean", "worst"]
    names += ["certified"] if any(each.certificate for each in board) else []
    return [COLUMNS[name] for name in names]


def chosen_columns(names: Sequence[str], evaluations: Sequence[Evaluation]) -> list[Column]:
    """Return the columns with these names; any attack that one of the evaluations has finished is a column, too.

    Raises:
        UserError: If there is no such column or attack, one is named twice, or none is named.
    """
    attacks = list(dict.fromkeys(attack.name for each in evaluations for attack in each.attacks))
    if unknown := [name for name in names if name not in COLUMNS and name not in attacks]:
        near = difflib.get_close_matches(unknown[0], [*COLUMNS, *attacks], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        have = ", ".join([*COLUMNS, *attacks])
        raise UserError(f"--columns: there is no column {unknown[0]!r}{hint} There are: {have}")
    if not names or len(set(names)) < len(names):
        raise UserError("--columns: name each column once, and at least one, as --columns network,cost,clean,worst")
    return [COLUMNS[name] if name in COLUMNS else _of_attack(name) for name in names]


def _of_attack(name: str) -> Column:
    """Return the column of the accuracy under an attack; of several runs of it, the one that leaves the fewest images."""

    def value(evaluation: Evaluation) -> Value:
        runs = [evaluation.robust(attack) for attack in evaluation.attacks if attack.name == name]
        return _share(min(runs, key=lambda robust: int(robust.sum()))) if runs else NOTHING

    return Column(name, name, value, _SHARE, "highest")

"""The leaderboard as a tidy table: what the CSV of leaderboards says, with one number in a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import pandas as pd

from exitbench.report.csv_file import to_csv
from exitbench.report.leaderboard.table import COLUMNS, rows_of
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.ranking import rank

DIGITS = "%.10g"
"""Format of its numbers; that of leaderboards rounds to six decimals."""

_LISTS = {"exits_taken": "exit_taken", "exit_accuracy": "exit_accuracy"}
"""Columns of a number per exit, and how the columns begin that these numbers are spread over."""


def tidy_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Return one row per evaluation and attack with the columns of leaderboards, of which these differ.

    ``eps`` is a number, with the text beside it in ``eps_text``. Numbers of exits have a column per exit: ``exit_taken_1`` ..,
    ``exit_accuracy_1`` .., ``exit_mmacs_1`` .. (the cost of leaving there). ``certified`` is 0 where nothing could be proven.
    """
    n_exits = max((each.record.n_exits for each in evaluations), default=0)
    rows = [row for each in sorted(evaluations, key=rank) for row in _rows(each)]
    some_grid = any(each.record.grid for each in evaluations)
    return pd.DataFrame(rows, columns=[name for name in _columns(n_exits) if some_grid or name != "grid"])


def tidy_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return the tidy table as CSV."""
    return to_csv(tidy_table(evaluations), DIGITS)


def _columns(n_exits: int) -> list[str]:
    names: list[str] = []
    for name in COLUMNS:
        names += [name] if name not in _LISTS else _numbered(_LISTS[name], n_exits)
        names += ["eps_text"] if name == "eps" else []
        names += _numbered("exit_mmacs", n_exits) if name == "exit_accuracy" else []
    return names


def _numbered(name: str, n_exits: int) -> list[str]:
    return [f"{name}_{k}" for k in range(1, n_exits + 1)]


def _rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield the leaderboard's rows: of clean images and finished attacks, which have figures of exits, then of the others."""
    record = evaluation.record
    costs = dict(zip(_numbered("exit_mmacs", record.n_exits), record.mmacs, strict=True))
    for row, result in zip_longest(rows_of(evaluation), (evaluation.clean, *evaluation.attacks)):
        values = {name: value for name, value in row.items() if name not in _LISTS}
        if result is not None:
            values |= dict(zip(_numbered("exit_taken", record.n_exits), evaluation.exit_counts(result), strict=True))
            values |= dict(zip(_numbered("exit_accuracy", record.n_exits), result.exit_accuracy, strict=True))
        if "certified" in row and evaluation.certificate:
            values["certified"] = evaluation.certificate.accuracy()
        seed = None if result is None else result.seed
        yield {**values, **costs, "eps": record.eps, "eps_text": row["eps"], "seed": seed}

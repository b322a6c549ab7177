"""The formats of ``bench export`` that are tables of leaderboards, and what to cite with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exitbench.report.paper.table import PaperTable
    from exitbench.scoring.evaluation import Evaluation

Made = tuple[bytes, list[str]]
"""What to write, and what to say of it."""


def latex(output: Path, caption: str | None, latex_label: str | None, markup: bool, **options: Any) -> Made:
    """Return the leaderboards as LaTeX."""
    from exitbench.errors import UserError
    from exitbench.report.paper.latex import to_latex

    tables = _tables(markup=markup, **options)
    if len(tables) > 1 and (caption is not None or latex_label is not None):
        raise UserError(f"--caption and --latex-label are of one table, these are {_names(tables)}; choose one with --board")
    return _written(output, [to_latex(table, caption, latex_label, markup=markup) for table in tables], tables)


def markdown(output: Path, caption: str | None, markup: bool, **options: Any) -> Made:
    """Return the leaderboards as Markdown."""
    from exitbench.errors import UserError
    from exitbench.report.paper.markdown import to_markdown

    tables = _tables(markup=markup, **options)
    if len(tables) > 1 and caption is not None:
        raise UserError(f"--caption is of one table, these are {_names(tables)}; choose one with --board")
    return _written(output, [to_markdown(table, caption, markup=markup) for table in tables], tables)


def csv(output: Path, **options: Any) -> Made:
    """Return the leaderboards as a tidy CSV."""
    from exitbench.report.paper.tidy import tidy_csv

    boards = _boards(**options)
    content = tidy_csv([each for board in boards.values() for each in board])
    return content.encode(), [f"wrote {output}: {', '.join(boards)}, {content.count(chr(10)) - 1} rows"]


def bibtex(output: Path, **options: Any) -> Made:
    """Return the entries of what the leaderboards rest on."""
    from exitbench.api.citations import cited
    from exitbench.models.citations import citations
    from exitbench.report.paper.bibtex import EXITBENCH, to_bibtex

    keys, missing = cited([each for board in _boards(**options).values() for each in board])
    content = to_bibtex([(key, citations()[key]) for key in keys], missing)
    said = [f"wrote {output}: {', '.join([EXITBENCH, *keys])}"]
    return content.encode(), said + [f"no entry is known for {one}; cite its authors" for one in missing]


def _written(output: Path, texts: Sequence[str], tables: Sequence[PaperTable]) -> Made:
    return "\n".join(texts).encode(), [f"wrote {output}: {_names(tables)}"]


def _names(tables: Sequence[PaperTable]) -> str:
    return ", ".join(table.name for table in tables)


def _tables(columns: str | None, labels: Sequence[str], markup: bool, **options: Any) -> list[PaperTable]:
    from exitbench.report.paper.columns import chosen_columns, default_columns
    from exitbench.report.paper.table import paper_table, read_labels

    boards = _boards(**options)
    every = [each for board in boards.values() for each in board]
    named = read_labels(labels, every)
    chosen = None if columns is None else chosen_columns([name.strip() for name in columns.split(",")], every)
    return [
        paper_table(name, board, default_columns(board) if chosen is None else chosen, named, markup=markup)
        for name, board in boards.items()
    ]


def _boards(
    results: Path, models: Sequence[str], training: str | None, what: str | None, board: str | None, **_options: Any
) -> dict[str, list[Evaluation]]:
    """Return the evaluations that are asked for, by leaderboard, best first.

    Raises:
        UserError: If there are none.
    """
    from exitbench.errors import UserError
    from exitbench.report.write import boards

    found = [
        each
        for each in _evaluations(results, what)
        if (not models or each.record.model in models) and training in (None, each.record.training)
    ]
    grouped = boards(found)
    if not grouped:
        raise UserError(f"{results} holds no finished evaluation of what is asked for; finish one first")
    if board is not None and board not in grouped:
        raise UserError(f"--board {board}: there is no such leaderboard of what is asked for; there are: {', '.join(grouped)}")
    return grouped if board is None else {board: grouped[board]}


def _evaluations(results: Path, what: str | None) -> list[Evaluation]:
    from exitbench.scoring.load import evaluation_of, evaluations
    from exitbench.store.store import Store
    from exitbench.verify.results import find_results

    if what is None:
        return evaluations(Store(results / "store"))
    runs = find_results(what, results)
    found = [evaluation_of(records, Store(runs.store)) for records in runs.records]
    return [each for each in found if each is not None]

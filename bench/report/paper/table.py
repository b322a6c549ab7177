"""A board as a paper's table, before it is written as LaTeX or Markdown: cells, what is best, and what is marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exitbench.errors import UserError
from exitbench.models.number_text import eps_text
from exitbench.report.leaderboard.flags import verdict
from exitbench.report.paper.columns import Column, Value
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.ranking import partial_status

DAGGER, DOUBLE, SECTION, PARAGRAPH = "†", "‡", "§", "¶"
"""Marks behind the name of a network, in the order of their severity."""

UNVERIFIED = "figures taken over without the images behind them, not verified here"


@dataclass(frozen=True)
class Row:
    """A row: the values by column, which of them are the best, and the marks of the network."""

    values: tuple[Value, ...]
    best: tuple[bool, ...]
    marks: str


@dataclass(frozen=True)
class PaperTable:
    """A table.

    Attributes:
        name: of the board, fit for file names and for LaTeX's labels.
        columns: from left to right.
        rows: from the best down, as on the board.
        caption: plain text that says what was measured.
        notes: marks and what they mean; the mark is empty where a note is about all rows.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str
    notes: tuple[tuple[str, str], ...]


def paper_table(
    name: str,
    board: Sequence[Evaluation],
    columns: Sequence[Column],
    labels: Mapping[str, str] | None = None,
    *,
    markup: bool = False,
) -> PaperTable:
    """Return the table of a board.

    Args:
        name: of the board.
        board: its evaluations, in the order of their rank.
        columns: from left to right.
        labels: short names, by ``model`` or ``model:training``.
        markup: whether these are LaTeX or Markdown already.
    """
    values = [[_labelled(column, each, labels or {}, markup=markup) for column in columns] for each in board]
    marks = [_marks(each) for each in board]
    everywhere = {PARAGRAPH: UNVERIFIED} if all(PARAGRAPH in found for found in marks) else {}
    marks = [{mark: text for mark, text in found.items() if mark not in everywhere} for found in marks]
    best = [_best(column, board, [row[i] for row in values]) for i, column in enumerate(columns)]
    rows = [Row(tuple(row), tuple(found[j] for found in best), "".join(marks[j])) for j, row in enumerate(values)]
    notes = sorted({(mark, text) for found in marks for mark, text in found.items()}, key=_severity)
    told = [*notes, *(("", text) for text in everywhere.values())]
    return PaperTable(name, tuple(columns), tuple(rows), _caption(board, columns), tuple(told))


def read_labels(texts: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Parse ``MODEL=NAME`` and ``MODEL:TRAINING=NAME``; a name may have ``=`` in it.

    Raises:
        UserError: If a text has another form, or names no network of the table.
    """
    known = {key for each in evaluations for key in _keys(each)}
    found = {}
    for text in texts:
        fitting = [key for key in known if text.startswith(f"{key}=") and text[len(key) + 1 :].strip()]
        if not fitting:
            have = ", ".join(sorted(known))
            raise UserError(f"--label {text!r}: the form is MODEL=NAME or MODEL:TRAINING=NAME, of {have}")
        key = max(fitting, key=len)
        found[key] = text[len(key) + 1 :].strip()
    return found


def _keys(evaluation: Evaluation) -> tuple[str, str]:
    record = evaluation.record
    return f"{record.model}:{record.training}", record.model


def _labelled(column: Column, evaluation: Evaluation, labels: Mapping[str, str], *, markup: bool) -> Value:
    value = column.value(evaluation)
    key = next((key for key in _keys(evaluation) if key in labels), None)
    if column.name != "network" or key is None:
        return value
    return replace(value, text=labels[key], markup=markup)


def _best(column: Column, board: Sequence[Evaluation], values: Sequence[Value]) -> list[bool]:
    """Return which values of a column are in bold: the best as they are printed, of rows that may be compared.

    What trust checks fail and costs that are a lower bound are never the best, and a worst case over a part of the matrix is not.
    Rows that are not verified here are, where there are no others. Where all are equal, none is.
    """
    if column.best is None:
        return [False] * len(values)
    fit = [
        value.order is not None
        and not evaluation.failures
        and not value.at_least
        and not (column.name == "worst" and partial_status(evaluation))
        for evaluation, value in zip(board, values, strict=True)
    ]
    verified = [each and evaluation.verified for each, evaluation in zip(fit, board, strict=True)]
    fit = verified if any(verified) else fit
    ordered = [value.order for value, each in zip(values, fit, strict=True) if each and value.order is not None]
    texts = {value.text for value, each in zip(values, fit, strict=True) if each}
    if len(texts) < 2:
        return [False] * len(values)
    top = max(ordered) if column.best == "highest" else min(ordered)
    text = next(value.text for value, each in zip(values, fit, strict=True) if each and value.order == top)
    return [each and value.text == text for value, each in zip(values, fit, strict=True)]


def _marks(evaluation: Evaluation) -> dict[str, str]:
    """Return the marks of a row, with what each means."""
    kind = verdict(evaluation)
    found = {}
    if kind == "failure":
        found[DAGGER] = "trust checks failed: the accuracy cannot be believed"
    elif kind == "warning":
        found[DOUBLE] = "trust checks warn: the robust accuracy may be lower"
    elif kind == "not checked":
        found[DOUBLE] = "no trust checks were run"
    if evaluation.attacked and partial_status(evaluation):
        found[SECTION] = "worst case over a part of the attacks"
    if not evaluation.verified:
        found[PARAGRAPH] = UNVERIFIED
    return found


def _severity(note: tuple[str, str]) -> tuple[int, str]:
    return (DAGGER, DOUBLE, SECTION, PARAGRAPH).index(note[0]), note[1]


def _on_grid(evaluation: Evaluation) -> str:
    grid = evaluation.record.grid
    return "" if grid is None else f", on images whose pixels are multiples of 1/{grid}"


def _caption(board: Sequence[Evaluation], columns: Sequence[Column]) -> str:
    first = board[0]
    counts = sorted({each.n for each in board})
    images = f"the first {counts[0]:,}" if len(counts) == 1 else f"the first {counts[0]:,} to {counts[-1]:,}"
    dataset = first.dataset_summary.partition(",")[0] if first.knows_data else first.dataset
    sentences = [
        f"Networks on {images} test images of {dataset} under attacks in {first.record.norm}, "
        f"radius {eps_text(first.record.eps)}{_on_grid(first)}."
    ]
    names = {column.name for column in columns}
    units = {column.unit for column in columns}
    if "%" in units:
        sentences.append("Accuracies in % with 95 % intervals.")
    if "worst" in names:
        sentences.append("Worst case: images that are classified correctly under every attack.")
    if "certified" in names:
        sentences.append("Certified: images for which no attack can succeed.")
    if "MMACs" in units:
        sentences.append("Cost: millions of multiply-accumulates for an image, in the mean.")
    return " ".join(sentences)

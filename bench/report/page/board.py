"""The page's table: which columns it has, and every row's cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exitbench.models.number_text import eps_text
from exitbench.models.spec import digest
from exitbench.report.leaderboard.certificate import certified_share
from exitbench.report.leaderboard.flags import NOT_VERIFIED, SIGNS, verdict
from exitbench.report.leaderboard.table import COLUMNS, rows_of, training_text
from exitbench.scoring.evaluation import Evaluation, Result
from exitbench.scoring.places import place_text, places, usual_n
from exitbench.scoring.ranking import WORST
from exitbench.store.run_record import evaluation_key

_LEFT_OUT = {
    "attack",
    "method",
    "seed",
    "accuracy",
    "ci_low",
    "ci_high",
    "slowdown_ratio",
    "savings_erased",
    "distance",
    "within",
}
_LEFT_OUT |= {"forwards", "backwards", "status", "flags"}
"""Columns of the CSV that say nothing of the clean images, or that the page's own columns say."""


@dataclass(frozen=True)
class Column:
    """A column of the page's table.

    Attributes:
        key: in links and in ``Row.cells``.
        title: heading.
        meaning: footnote.
        number: whether it sorts and aligns as a number.
        shown: to begin with.
        small: also on a phone.
    """

    key: str
    title: str
    meaning: str
    number: bool = True
    shown: bool = True
    small: bool = False


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and what it sorts by: ``order`` where that is not the text."""

    text: str = ""
    order: float | None = None


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Attributes:
        key: of links, the same as long as model, weights, rule, data and threat model are.
        board: that it is on.
        style: which of the board's colours and markers, from 0.
        kind: what trust checks say, a key of ``SIGNS``.
        sign: The sign that stands for ``kind``.
        flags: name of every failure and warning, with its message.
        cells: by column.
    """

    key: str
    board: str
    style: int
    kind: str
    sign: str
    flags: tuple[tuple[str, str], ...]
    cells: Mapping[str, Cell]


_OWN = (
    Column(
        "rank",
        "#",
        "place on its board, which is dataset and threat model; what trust checks fail comes last. 2-4: not told apart from its "
        "neighbours by exact McNemar tests of the worst cases (Holm, 5 % for the board), or by intervals where samples differ",
    ),
    Column("model", "model", COLUMNS["model"], number=False, small=True),
    Column("training", "training", COLUMNS["training"], number=False),
    Column("dataset", "dataset", COLUMNS["dataset"], number=False),
    Column("threat", "threat model", "norm and radius of the ball, for pixels in [0, 1]", number=False),
    Column("network", "network", "whether inputs may leave early, and whether weights were pruned", number=False),
    Column("exits", "exits", "number of exits", shown=False),
    Column("n", "n", f"{COLUMNS['n']}; marked where most rows of the board have another"),
    Column("mmacs", "mean mmacs", f"mean cost on clean images: {COLUMNS['mmacs'].partition(': ')[2]}", small=True),
    Column("clean", "clean %", "share of clean samples that the deployed rule gets right", small=True),
    Column("clean_ci", "clean interval", "Wilson's 95 % interval of the clean accuracy", number=False),
    Column("worst", "worst case %", "share of samples right when clean and under every attack: the headline", small=True),
    Column("worst_ci", "worst case interval", "Wilson's 95 % interval of the worst case", number=False),
    Column(
        "certified",
        "certified %",
        "share of samples that no attack can break, proven; the truth lies between it and the worst case",
    ),
    Column("certified_mmacs", "certified mmacs", "the most that an attacker can make the samples cost in the mean, proven"),
    Column("trust", "trust checks", "what they found, failures first; the numbers are in the model's details", number=False),
    Column("strongest", "strongest attack", "the single attack that leaves the fewest", number=False),
    Column("leaves", "it leaves %", "share of samples that are right when clean and under the strongest attack", shown=False),
    Column(
        "erased", "savings erased %", f"by the costliest slowdown attack: {COLUMNS['savings_erased'].replace(': 1 ', ': 100 ')}"
    ),
    Column("any_exit", "no exit broken %", "share of samples of which no stored image makes any exit wrong", shown=False),
    Column("attacks", "attacks", "number of finished attacks, those that a selection is made of included", shown=False),
    Column("status", "matrix", "whether the worst case is one over the whole matrix of attacks", number=False),
)
"""The page's own columns."""

_NEEDLESS = ("training", "dataset", "threat", "network")  # where all rows agree; hidden then
_TAKEN = _LEFT_OUT | {column.key for column in _OWN} | {"norm", "eps", "accuracy_any_exit"}


def rows(boards: Mapping[str, Sequence[Evaluation]]) -> list[Row]:
    """A row for each evaluation, board after board in the order of rank."""
    return [row for name, found in boards.items() for row in _rows(name, found)]


def columns(found: Sequence[Row]) -> list[Column]:
    """The page's own columns, then the CSV's others, hidden; those that say nothing on any row are left out."""
    extra = [Column(name, name, meaning, shown=False) for name, meaning in COLUMNS.items() if name not in _TAKEN]
    wanted = [column for column in (*_OWN, *extra) if any(row.cells[column.key].text for row in found)]
    if all(row.cells["mmacs_dense"].text in ("", row.cells["mmacs"].text) for row in found):
        wanted = [column for column in wanted if column.key not in ("mmacs_dense", "sparsity")]
    agreed = {key for key in _NEEDLESS if len({row.cells[key].text for row in found}) == 1}
    return [replace(column, shown=False) if column.key in agreed else column for column in wanted]


def key_of(evaluation: Evaluation) -> str:
    """The row's key: readable, and unique by a digest of what makes the evaluation."""
    record = evaluation.record
    words = "".join(character if character.isalnum() else "-" for character in f"{record.model}-{record.training}".lower())
    return f"{words.encode('ascii', 'ignore').decode()[:48]}-{digest(evaluation_key(record))[:8]}"


def network_text(evaluation: Evaluation) -> str:
    """The kind of network, for the filter."""
    kind = "early exits" if evaluation.record.n_exits > 1 else "one exit"
    return f"{kind}, pruned" if evaluation.sparsity else kind


def costliest(evaluation: Evaluation) -> Result | None:
    """The slowdown attack under which images cost most; None where there is none."""
    found = [attack for attack in evaluation.attacks if attack.is_slowdown]
    return max(found, key=evaluation.mean_cost, default=None)


def percent(share: float) -> str:
    """In percent, one decimal."""
    return f"{100 * share:.1f}"


def _rows(board: str, found: Sequence[Evaluation]) -> Iterator[Row]:
    usual = usual_n(found)
    placed = iter(places([evaluation for evaluation in found if evaluation.verified]))
    for i, evaluation in enumerate(found):
        row = _row(board, i, evaluation)
        number = evaluation.n if evaluation.n == usual else f"{evaluation.n} ≠ {usual}"
        own = {
            "rank": Cell(place_text(next(placed)) if evaluation.verified else NOT_VERIFIED, i + 1),
            "n": Cell(str(number), float(evaluation.n)),
        }
        yield replace(row, cells={**row.cells, **own})


def _row(board: str, i: int, evaluation: Evaluation) -> Row:
    kind = verdict(evaluation)
    flags = tuple((flag.label, flag.message) for flag in evaluation.flags if flag.level != "info")
    return Row(key_of(evaluation), board, i, kind, SIGNS[kind], flags, _cells(evaluation, kind, flags))


def _cells(evaluation: Evaluation, kind: str, flags: Sequence[tuple[str, str]]) -> dict[str, Cell]:
    record, table = evaluation.record, rows_of(evaluation)
    clean, last = table[0], table[-1]
    worst = last if last["attack"] == WORST and evaluation.attacked else None
    strongest, slowdown = evaluation.strongest(), costliest(evaluation)
    erased = evaluation.slowed(slowdown).savings_erased if slowdown else None
    cells = {name: _cell(clean.get(name)) for name in COLUMNS if name not in _TAKEN}
    return cells | {
        "model": Cell(record.model),
        "training": Cell(training_text(record)),
        "dataset": Cell(evaluation.dataset),
        "threat": Cell(f"{record.norm} {eps_text(record.eps)}"),
        "network": Cell(network_text(evaluation)),
        "exits": _cell(record.n_exits),
        "mmacs": Cell(f"{'≥ ' if evaluation.uncounted else ''}{clean['mmacs']:.2f}", clean["mmacs"]),
        "mmacs_dense": Cell(f"{clean['mmacs_dense']:.2f}", clean["mmacs_dense"]),
        "mflops_paper": _figure(clean["mflops_paper"]),
        "clean": Cell(percent(clean["accuracy"]), clean["accuracy"]),
        "clean_ci": _interval(clean),
        "worst": Cell(percent(worst["accuracy"]), worst["accuracy"]) if worst else Cell("not attacked", -1),
        "worst_ci": _interval(worst) if worst else Cell(),
        **_proven(evaluation),
        "strongest": Cell(strongest.name if strongest else ""),
        "leaves": _share(float(evaluation.robust(strongest).mean()) if strongest else None),
        "erased": _share(erased),
        "any_exit": _share(worst["accuracy_any_exit"] if worst else None),
        "attacks": _cell(len(evaluation.attacks)),
        "status": Cell(_matrix(evaluation) if worst else "not attacked"),
        "trust": Cell(
            "; ".join([*_unverified(evaluation), *([kind, *(label for label, _ in flags)] if kind != "ok" else ["ok"])])
        ),
    }


def _unverified(evaluation: Evaluation) -> list[str]:
    return [] if evaluation.verified else [NOT_VERIFIED]


def _matrix(evaluation: Evaluation) -> str:
    if evaluation.unfinished:
        return f"{len(evaluation.unfinished)} unfinished"
    return "whole" if evaluation.complete else "in part"


def _proven(evaluation: Evaluation) -> dict[str, Cell]:
    """Return the cells of what is certified; empty where nothing was tried."""
    certificate = evaluation.certificate
    if certificate is None:
        return {"certified": Cell(), "certified_mmacs": Cell()}
    share, cost = certified_share(certificate), certificate.cost()
    certified = Cell(share, -1) if isinstance(share, str) else Cell(percent(share), share)
    return {"certified": certified, "certified_mmacs": Cell(f"{cost:.2f}", cost)}


def _interval(row: Mapping[str, Any]) -> Cell:
    return Cell(f"{percent(row['ci_low'])} - {percent(row['ci_high'])}", row["ci_low"])


def _figure(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f"{value:.2f}", value)


def _share(share: float | None) -> Cell:
    return Cell() if share is None else Cell(percent(share), share)


def _cell(value: object) -> Cell:
    """Any value of the CSV."""
    if value is None or value == "":
        return Cell()
    if isinstance(value, bool | str):
        return Cell(str(value))
    if isinstance(value, int | float):
        return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), float(value))
    return Cell(str(value))

"""The page's table: which columns it has, and every row's cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exitbench.models.number_text import cost_text
from exitbench.models.spec import digest
from exitbench.report.charts.looks import Looks, looks_of
from exitbench.report.leaderboard.certificate import certified_share
from exitbench.report.leaderboard.flags import NOT_VERIFIED, SIGNS, verdict
from exitbench.report.leaderboard.table import rows_of, training_text
from exitbench.report.page.columns import OF_THE_CSV, OWN, Column, of_the_csv
from exitbench.report.page.identity import Identity, identities, network_text
from exitbench.scoring.evaluation import Evaluation, Result
from exitbench.scoring.places import place_text, places, usual_n
from exitbench.scoring.ranking import WORST
from exitbench.store.run_record import evaluation_key


@dataclass(frozen=True)
class Cell:
    """Text of a cell; what it sorts by, ``order``, where that is not the text; and what pointing at it shows."""

    text: str = ""
    order: float | None = None
    tip: str = ""


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Attributes:
        key: of links, the same as long as model, weights, rule, data and threat model are.
        board: that it is on.
        style: number of its network's colour and marker, the same in every figure.
        kind: what trust checks say, a key of ``SIGNS``.
        sign: The sign that stands for ``kind``.
        flags: name of every failure and warning, with its message.
        identity: who it is.
        cells: by column.
    """

    key: str
    board: str
    style: int
    kind: str
    sign: str
    flags: tuple[tuple[str, str], ...]
    identity: Identity
    cells: Mapping[str, Cell]


_AGREED = ("n", "status", "network")
"""Columns that are hidden where all rows of each board agree."""


def rows(boards: Mapping[str, Sequence[Evaluation]]) -> list[Row]:
    """A row for each evaluation, board after board in the order of rank."""
    looks = looks_of(evaluation for found in boards.values() for evaluation in found)
    return [row for name, found in boards.items() for row in _rows(name, found, looks)]


def columns(found: Sequence[Row]) -> list[Column]:
    """The page's own columns, then the CSV's others, hidden; those that say nothing on any row are left out."""
    wanted = [column for column in (*OWN, *of_the_csv()) if any(row.cells[column.key].text for row in found)]
    if all(row.cells["mmacs_dense"].text in ("", row.cells["mmacs"].text) for row in found):
        wanted = [column for column in wanted if column.key not in ("mmacs_dense", "sparsity")]
    boards = {row.board for row in found}
    agreed = {key for key in _AGREED if len({(row.board, row.cells[key].text) for row in found}) == len(boards)}
    return [replace(column, shown=False) if column.key in agreed else column for column in wanted]


def key_of(evaluation: Evaluation) -> str:
    """The row's key: readable, and unique by a digest of what makes the evaluation."""
    record = evaluation.record
    words = "".join(character if character.isalnum() else "-" for character in f"{record.model}-{record.training}".lower())
    return f"{words.encode('ascii', 'ignore').decode()[:48]}-{digest(evaluation_key(record))[:8]}"


def costliest(evaluation: Evaluation) -> Result | None:
    """The slowdown attack under which images cost most; None where there is none."""
    found = [attack for attack in evaluation.attacks if attack.is_slowdown]
    return max(found, key=evaluation.mean_cost, default=None)


def percent(share: float) -> str:
    """In percent, one decimal."""
    return f"{100 * share:.1f}"


def _rows(board: str, found: Sequence[Evaluation], looks: Looks) -> Iterator[Row]:
    usual = usual_n(found)
    placed = iter(places([evaluation for evaluation in found if evaluation.verified]))
    for i, (evaluation, identity) in enumerate(zip(found, identities(found), strict=True)):
        row = _row(board, looks[evaluation.record.network], evaluation, identity)
        number = evaluation.n if evaluation.n == usual else f"{evaluation.n} ≠ {usual}"
        own = {
            "rank": _rank(next(placed), i) if evaluation.verified else Cell("-", i + 1, f"no place: {NOT_VERIFIED}"),
            "n": Cell(str(number), float(evaluation.n)),
        }
        yield replace(row, cells={**row.cells, **own})


def _rank(place: tuple[int, int], i: int) -> Cell:
    first, last = place
    tip = "" if first == last else f"tie: places {first} to {last} are not told apart"
    return Cell(place_text(place), i + 1, tip)


def _row(board: str, look: int, evaluation: Evaluation, identity: Identity) -> Row:
    kind = verdict(evaluation)
    flags = tuple((flag.label, flag.message) for flag in evaluation.flags if flag.level != "info")
    cells = {**_cells(evaluation, kind, flags), **_who(evaluation, identity)}
    return Row(key_of(evaluation), board, look, kind, SIGNS[kind], flags, identity, cells)


def _who(evaluation: Evaluation, identity: Identity) -> dict[str, Cell]:
    record, about, paper = evaluation.record, identity.about, identity.paper
    millions = None if about.parameters is None else about.parameters / 1e6
    return {
        "model": Cell(identity.name),
        "id": Cell(record.model),
        "training": Cell(training_text(record)),
        "dataset": Cell(evaluation.dataset),
        "threat": Cell(record.threat.text),
        "network": Cell(network_text(evaluation)),
        "paper": Cell(paper.short if paper else ""),
        "year": Cell(str(paper.year), paper.year) if paper else Cell(),
        "family": Cell(identity.family),
        "defence": Cell(about.defence),
        "extra_data": Cell(about.extra_data),
        "parameters": _figure(millions),
    }


def _cells(evaluation: Evaluation, kind: str, flags: Sequence[tuple[str, str]]) -> dict[str, Cell]:
    record, table = evaluation.record, rows_of(evaluation)
    clean, last = table[0], table[-1]
    worst = last if last["attack"] == WORST and evaluation.attacked else None
    strongest, slowdown = evaluation.strongest(), costliest(evaluation)
    erased = evaluation.slowed(slowdown).savings_erased if slowdown else None
    cells = {name: _cell(clean.get(name)) for name in OF_THE_CSV}
    return cells | {
        "exits": _cell(record.n_exits),
        "mmacs": Cell(f"{'≥ ' if evaluation.uncounted else ''}{cost_text(clean['mmacs'])}", clean["mmacs"]),
        "mmacs_dense": Cell(cost_text(clean["mmacs_dense"]), clean["mmacs_dense"]),
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
        "status": Cell(_run(evaluation) if worst else "not attacked"),
        "trust": Cell(
            "; ".join([*_unverified(evaluation), *([kind, *(label for label, _ in flags)] if kind != "ok" else ["passed"])])
        ),
    }


def _unverified(evaluation: Evaluation) -> list[str]:
    return [] if evaluation.verified else [NOT_VERIFIED]


def _run(evaluation: Evaluation) -> str:
    if evaluation.unfinished:
        return f"{len(evaluation.unfinished)} unfinished"
    return "all" if evaluation.complete else "some"


def _proven(evaluation: Evaluation) -> dict[str, Cell]:
    """Return the cells of what is certified; empty where nothing was tried."""
    certificate = evaluation.certificate
    if certificate is None:
        return {"certified": Cell(), "certified_mmacs": Cell()}
    share, cost = certified_share(certificate), certificate.cost()
    certified = Cell(share, -1) if isinstance(share, str) else Cell(percent(share), share)
    return {"certified": certified, "certified_mmacs": Cell(cost_text(cost), cost)}


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

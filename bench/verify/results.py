"""Reads run records, cells and reported figures from a results folder, without changing anything in it."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.stored import NewerSchema, Unreadable
from exitbench.store.cell import MOST_CELL, Cell
from exitbench.store.csv_text import text_in
from exitbench.store.identity import Identity
from exitbench.store.inside import open_inside, read_inside
from exitbench.store.run_record import RunRecord, check_rule, evaluation_key, left_out, read_run
from exitbench.store.store import cell_path
from exitbench.store.trust_result import TrustResult, read_trust
from exitbench.store.verification import Verification, evidence_digest, write_verification
from exitbench.verify.claims import Claims

_log = logging.getLogger(__name__)

AGAIN = "run the evaluation again to replace it"


@dataclass(frozen=True)
class Results:
    """The run records to verify.

    Attributes:
        store: Folder of the store.
        records: Records grouped by evaluation: those of a group differ only in attacks, seed or note.
        whole: Whether these are all records of their evaluations, so that reported worst cases apply.
    """

    store: Path
    records: tuple[tuple[RunRecord, ...], ...]
    whole: bool


def find_results(what: str, results: Path, model: str | None = None) -> Results:
    """Find runs by ``what``: a results folder, the file of a run record, or the first digits of a run's id in ``results``.

    Raises:
        UserError: If nothing matches, the store is empty, or a record cannot be read.
    """
    path = Path(what)
    if path.is_dir():
        store = store_in(path)
        files, whole = sorted((store / "runs").glob("*.json")), True
    elif path.is_file():
        store, files, whole = path.parent.parent, [path], False
    else:
        store, whole = results / "store", False
        files = sorted((store / "runs").glob(f"{_plain(what)}*.json"))
        if len(files) != 1:
            found = "no run" if not files else f"{len(files)} runs"
            raise UserError(
                f"{what!r} is no file and no folder, and {found} of that id in {results}: name a results folder, an exported "
                "file, or a run by enough of its id (the names in store/runs) with --results"
            )
    records = [record for path in files if (record := _read(path, alone=len(files) == 1)) and model in (None, record.model)]
    if not records and not any((store / "certificates").glob("*.json")):
        of = f" of model {model!r}" if model is not None and files else ""
        raise UserError(f"there is no recorded run{of} in {store}; nothing to verify")
    return Results(store, _grouped(records), whole)


def store_in(folder: Path) -> Path:
    """Return the store of a results folder, which may be the store itself."""
    return folder / "store" if (folder / "store").is_dir() else folder


def record_verification(claims: Claims) -> None:
    """Keep in the store of claims that they hold; exported claims have none.

    Raises:
        OSError: If the store cannot be written.
    """
    if claims.store is None:
        return
    evidence = evidence_digest(claims.records, partial(read_cell, claims.store))
    write_verification(
        claims.store, Verification(evidence=evidence, counterexamples=len(claims.row), figures_alone=claims.figures_alone)
    )


def trust_results(claims: Claims) -> Iterator[tuple[RunRecord, TrustResult]]:
    """Yield the stored trust results of claims, each once, with a record that names it.

    Raises:
        UserError: If one cannot be read, or is not what its digest says.
    """
    by_key = {record.trust: record for record in reversed(claims.records) if record.trust is not None}
    for key, record in by_key.items():
        if claims.store is None:
            return
        path = claims.store / "trust" / f"{key}.json"
        try:
            yield record, read_trust(read_inside(claims.store, path), path, key)
        except FileNotFoundError:
            continue
        except (Unreadable, OSError) as error:
            raise UserError(f"{error}; {AGAIN}") from error


def read_cell(store: Path, key: str) -> Cell | None:
    """Read a cell, or return None if it is missing.

    Raises:
        UserError: If the cell is damaged, or of another schema.
    """
    path = cell_path(store, key)
    try:
        with open_inside(store, path, MOST_CELL) as file:
            return Cell.from_file(file, key, source=path)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        raise UserError(f"{path} cannot be read ({str(error).removeprefix(f'{path}: ')}); {AGAIN}") from error


def image_shape(store: Path, records: Sequence[RunRecord]) -> tuple[int, int, int] | None:
    """Return the shape ``(C, H, W)`` of the evaluated images, or None if there is no cell yet.

    Raises:
        UserError: If a cell cannot be read.
    """
    for record in records:
        for attack in record.attacks:
            for key in attack.keys:
                if (cell := read_cell(store, key)) is not None:
                    channels, height, width = cell.counterexamples.shape[1:]
                    return channels, height, width
    return None


def reported(store: Path, of: Identity) -> dict[str, int]:
    """Return the number of samples that the leaderboard reports right, clean (``none``) and in the ``worst`` case.

    Raises:
        UserError: If the leaderboard cannot be read.
    """
    # Unknown data has a board of its own; boards without a grid have no column for it.
    wanted = {"grid": "", **{name: text for name, text in of.columns().items() if name != "dataset"}}
    found: dict[str, int] = {}
    for path in sorted((store.parent / "leaderboards").glob("*.csv")):
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in ({"grid": "", **each} for each in csv.DictReader(file)):
                    told = {name: text_in(row, name) for name in wanted}
                    if row["attack"] in ("none", "worst") and told == wanted:
                        found[row["attack"]] = round(float(row["accuracy"]) * of.n)
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise UserError(f"{path} cannot be read ({error!r}); write it again with `exitbench report`") from error
    return found


def _plain(what: str) -> str:
    """Return a run id, or a text that matches none if it has special characters of a glob."""
    return what if what.isalnum() else "-"


def _read(path: Path, *, alone: bool) -> RunRecord | None:
    """The record in a file; of one among several that cannot be read, None, and its name in the log."""
    try:
        record = read_run(path)
        check_rule(record, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Unreadable as error:
        if alone:
            raise UserError(f"{error}{'' if isinstance(error, NewerSchema) else f'; {AGAIN}'}") from error
        _log.error("%s", left_out(error))
        return None
    return record


def _grouped(records: Sequence[RunRecord]) -> tuple[tuple[RunRecord, ...], ...]:
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(evaluation_key(record), []).append(record)
    return tuple(tuple(group) for _, group in sorted(groups.items()))

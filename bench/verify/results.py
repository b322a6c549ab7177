"""What a results folder holds, read without changing anything in it: run records, cells and reported figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exitbench.errors import UserError
from exitbench.store.cell import BadCell, Cell
from exitbench.store.run_record import RECORD_SCHEMA, eps_text
from exitbench.store.store import cell_path
from exitbench.verify.claims import CLAIM_FIELDS

AGAIN = "run the evaluation again to mend it"


@dataclass(frozen=True)
class Results:
    """Run records to be verified.

    Attributes:
        store: folder of the store.
        records: by evaluation, those that differ in attacks, seed or note alone together.
        whole: whether these are all records of their evaluations, so that reported worst cases are theirs.
    """

    store: Path
    records: tuple[tuple[Mapping[str, Any], ...], ...]
    whole: bool


def find_results(what: str, results: Path, model: str | None = None) -> Results:
    """The runs that ``what`` names: a results folder, a run record's file, or the first digits of its id in ``results``.

    Raises:
        UserError: nothing of the kind, an empty store, or a record that cannot be read.
    """
    path = Path(what)
    if path.is_dir():
        store = path / "store" if (path / "store").is_dir() else path
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
    records = [record for record in map(_read_record, files) if model in (None, record["model"])]
    if not records:
        of = f" of model {model!r}" if model is not None and files else ""
        raise UserError(f"there is no recorded run{of} in {store}; nothing to verify")
    return Results(store, _grouped(records), whole)


def read_cell(store: Path, key: str) -> Cell | None:
    """A cell, or None where it is not there.

    Raises:
        UserError: damaged, or of another schema.
    """
    path = cell_path(store, key)
    try:
        return Cell.from_bytes(path.read_bytes(), key)
    except FileNotFoundError:
        return None
    except BadCell as error:
        raise UserError(f"{path} cannot be read ({error}); {AGAIN}") from error


def image_shape(store: Path, records: Sequence[Mapping[str, Any]]) -> tuple[int, int, int] | None:
    """``(C, H, W)`` of the images that were evaluated, which every cell knows; None where there is no cell yet.

    Raises:
        UserError: a cell that cannot be read.
    """
    for record in records:
        for attack in record["attacks"]:
            for key in attack["keys"]:
                if (cell := read_cell(store, key)) is not None:
                    channels, height, width = cell.counterexamples.shape[1:]
                    return channels, height, width
    return None


def reported(store: Path, subject: Mapping[str, Any]) -> dict[str, int]:
    """How many samples the leaderboard beside the store reports right, clean (``none``) and in the ``worst`` case.

    Raises:
        UserError: a leaderboard that cannot be read.
    """
    wanted = {name: subject[name] for name in ("model", "training", "policy", "dataset", "norm", "n")}
    wanted |= {"calibration": subject["calibration"] or "", "weights": subject["weights"][:12], "data": subject["data"][:12]}
    wanted = {name: str(value) for name, value in {**wanted, "eps": eps_text(subject["eps"])}.items()}
    found: dict[str, int] = {}
    for path in sorted((store.parent / "leaderboards").glob("*.csv")):
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if row["attack"] in ("none", "worst") and all(row[name] == value for name, value in wanted.items()):
                        found[row["attack"]] = round(float(row["accuracy"]) * subject["n"])
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise UserError(f"{path} cannot be read ({error!r}); write it again with `bench report`") from error
    return found


def _plain(what: str) -> str:
    """A run id, or what matches none: a glob's special characters must not be taken for a pattern."""
    return what if what.isalnum() else "-"


def _read_record(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or "attacks" not in record:
            raise ValueError("it is no run record")
        if record.get("schema") == RECORD_SCHEMA:
            missing = [name for name in (*CLAIM_FIELDS, "seed", "mmacs") if name not in record]
            missing += [name for attack in record["attacks"] for name in ("name", "spec", "keys") if name not in attack]
            if missing:
                raise ValueError(f"it lacks {', '.join(dict.fromkeys(missing))}")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {AGAIN}") from error
    if record.get("schema") != RECORD_SCHEMA:
        raise UserError(
            f"{path} is a run record of schema {record.get('schema')}, this exitbench reads {RECORD_SCHEMA}; "
            "verify it with the exitbench that made it"
        )
    return record


def _grouped(records: Sequence[Mapping[str, Any]]) -> tuple[tuple[Mapping[str, Any], ...], ...]:
    from exitbench.store.run_record import evaluation_key

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(evaluation_key(record), []).append(record)
    return tuple(tuple(group) for _, group in sorted(groups.items()))

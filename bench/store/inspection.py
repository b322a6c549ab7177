"""Looks at everything in a store before any of it is taken: what is valid, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from exitbench.models.field_types import Key
from exitbench.models.stored import NewerSchema, Unreadable
from exitbench.store.calibration_logits import HeldOut
from exitbench.store.cell import MOST_CELL, Cell
from exitbench.store.cell_error import CELL_ERROR
from exitbench.store.fit import Facts, facts_of, misfits
from exitbench.store.generations import Generations
from exitbench.store.inside import open_inside, read_inside
from exitbench.store.run_record import RunRecord, check_rule, read_run
from exitbench.store.store import cell_path
from exitbench.store.trust_result import TrustResult, read_trust


@dataclass
class Inspected:
    """What a store holds.

    Attributes:
        root: of the store.
        runs: records that can be read and whose cells fit, by file.
        newer: files of records that only a newer exitbench reads, with the message.
        cells: facts of valid cells, by key.
        trust: valid results of trust checks, by key.
        calibration, networks, errors: keys of valid files.
        flaws: what cannot be taken, and why, a line for each; it begins with the file's name.
    """

    root: Path
    runs: dict[Path, RunRecord] = field(default_factory=dict)
    newer: dict[Path, str] = field(default_factory=dict)
    cells: dict[str, Facts] = field(default_factory=dict)
    trust: dict[str, TrustResult] = field(default_factory=dict)
    calibration: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)
    flaws: list[str] = field(default_factory=list)


def inspect(root: Path) -> Inspected:
    """Read every file of a store that merging takes, one at a time; nothing is changed."""
    found = Inspected(root)
    _each(found, "cells/*/*.npz", lambda key, path: found.cells.update({key: _cell(root, key, path)}))
    _each(found, "trust/*.json", lambda key, path: _trust(found, key, path))
    _each(found, "calibration/*.npz", lambda key, path: _held_out(found, key, path))
    _each(found, "networks/*.json", lambda key, path: _network(found, key))
    _each(found, "errors/*.json", lambda key, path: _error(found, key, path))
    records: dict[Path, RunRecord] = {}
    _each(found, "runs/*.json", lambda key, path: _run(found, records, path))
    _fitting(found, records)
    return found


def _each(found: Inspected, pattern: str, look: Callable[[str, Path], object]) -> None:
    for path in sorted(found.root.glob(pattern)):
        try:
            look(_key(path), path)
        except FileNotFoundError:
            continue
        except OSError as error:
            found.flaws.append(f"{path} cannot be read: {error.strerror or error}")
        except Unreadable as error:
            said = str(error)
            found.flaws.append(said if said.startswith(str(path)) else f"{path}: {said}")


def _key(path: Path) -> str:
    try:
        return msgspec.convert(path.stem, Key)
    except msgspec.ValidationError as error:
        raise Unreadable(f"{path.parent}/{path.name!a} cannot be read: its name is no SHA-256 in hex") from error


def _cell(root: Path, key: str, path: Path) -> Facts:
    if path != cell_path(root, key):
        raise Unreadable(f"{path} cannot be read: a cell of this name stands in another folder")
    with open_inside(root, path, MOST_CELL) as file:
        cell = Cell.from_file(file, key, source=path)
        size = file.seek(0, 2)
    facts = facts_of(cell, size, lacks_images=cell.lacks_images)
    if facts.key != key:
        raise Unreadable(f"{path}: its name is not the digest of its weights, inputs, attack and seed")
    return facts


def _trust(found: Inspected, key: str, path: Path) -> None:
    found.trust[key] = read_trust(read_inside(found.root, path), path, key)


def _held_out(found: Inspected, key: str, path: Path) -> None:
    HeldOut.from_bytes(read_inside(found.root, path, MOST_CELL), key)
    found.calibration.add(key)


def _network(found: Inspected, key: str) -> None:
    Generations(found.root).load(key)
    found.networks.add(key)


def _error(found: Inspected, key: str, path: Path) -> None:
    CELL_ERROR.read_text(read_inside(found.root, path), path)
    found.errors.add(key)


def _run(found: Inspected, records: dict[Path, RunRecord], path: Path) -> None:
    try:
        record = read_run(path)
        check_rule(record, path)
    except NewerSchema as error:
        found.newer[path] = str(error)
    else:
        records[path] = record


def _fitting(found: Inspected, records: dict[Path, RunRecord]) -> None:
    """Keep the records whose cells fit; drop the cells that no kept record lists and one that is not kept does."""
    dropped: set[str] = set()
    for path, record in records.items():
        if (flaw := next(misfits(record, found.cells.get), None)) is None:
            found.runs[path] = record
        else:
            found.flaws.append(f"{path}: its cells do not fit: {flaw}")
            dropped.update(_listed(record))
    for record in found.runs.values():
        dropped.difference_update(_listed(record))
        result = found.trust.get(record.trust or "")
        if result is not None and (len(result.gradients.zero) != record.n_exits or max(result.samples, default=0) >= record.n):
            found.flaws.append(f"{found.root}/trust/{result.key}.json: it is of another network, or of other samples")
            del found.trust[result.key]
    for key in dropped:
        found.cells.pop(key, None)


def _listed(record: RunRecord) -> Iterator[str]:
    for attack in record.attacks:
        yield from attack.keys

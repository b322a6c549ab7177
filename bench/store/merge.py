"""Merges the stores of several machines: results that agree are copied; conflicts are reported and left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exitbench.errors import UserError
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.policy_text import parse_policy
from exitbench.store.calibration_logits import HeldOut
from exitbench.store.cell import MOST_CELL, Cell
from exitbench.store.inside import check_folders, open_inside, read_inside, write_inside
from exitbench.store.inspection import Inspected, inspect
from exitbench.store.merge_networks import take_networks
from exitbench.store.merged import Conflict, Merged
from exitbench.store.store import cell_path
from exitbench.store.trust_result import TRUST_RESULT, TrustResult

_log = logging.getLogger(__name__)


def store_root(place: Path) -> Path:
    """Return the store at ``place``, which is a results folder or the store in it.

    Raises:
        UserError: If it is neither, or has links in place of folders.
    """
    for root in (place / "store", place):
        if (root / "cells").is_dir() and (root / "runs").is_dir():
            check_folders(root)
            return root
    raise UserError(f"{place} holds no store; name a results folder, or the store in it")


def merge(target: Path, sources: Sequence[Path], prefer: Path | None = None, looked_at: Iterable[Inspected] = ()) -> Merged:
    """Merge the valid files of ``sources`` into the store ``target``; everything is looked at before anything is copied.

    Versions of a cell agree if every exit of every sample predicts the same class and every sample leaves at the same exit under
    every policy that some run uses; a version with counterexamples is preferred. In a conflict, the target keeps its own version;
    if it has none, it gets none, and the next run computes the cell again.

    Args:
        target: Root of the store to merge into, the only one that is written.
        sources: Roots of the stores to merge.
        prefer: The store among them whose versions win conflicts, even over the target's own.
        looked_at: What was found in some of these stores just now; they are not read again.

    Raises:
        OSError: If the target cannot be written. Files merged until then are kept; a second merge continues.
    """
    known = {found.root: found for found in looked_at}
    places = {place: known.get(place) or inspect(place) for place in (target, *sources)}
    done = Merged(damaged=[flaw for found in places.values() for flaw in found.flaws])
    policies = _policies(places.values())
    refused = take_networks(target, sources, prefer, done)
    for key in _keys(found.cells for found in places.values()):
        holders = {place: found.cells[key] for place, found in places.items() if key in found.cells}
        holders = {place: facts for place, facts in holders.items() if (place, facts.weights) not in refused}
        alone = len(holders) == 1  # there is nothing to compare it with
        versions = [(place, None if alone else _cell(place, key)) for place in holders]
        verdicts = [None if cell is None else _verdicts(cell, policies.get(key, ())) for _, cell in versions]
        full = {place for place, facts in holders.items() if not facts.lacks_images}
        _settle("cell", key, versions, verdicts, target, prefer, cell_path, done, full)
    for key in _keys(found.trust for found in places.values()):
        probes = [(place, found.trust[key]) for place, found in places.items() if key in found.trust]
        _settle("trust checks", key, probes, [_numbers(probe) for _, probe in probes], target, prefer, _trust_path, done)
    for key in _keys(found.calibration for found in places.values()):
        held = [(place, _held_out(place, key)) for place, found in places.items() if key in found.calibration]
        classes = [each.logits.argmax(-1) for _, each in held]
        _settle("calibration logits", key, held, classes, target, prefer, _calibration_path, done)
    _runs(places[target], [places[source] for source in sources], refused, done)
    _errors(target, [places[source] for source in sources])
    return done


def _settle(
    what: str,
    key: str,
    versions: Sequence[tuple[Path, Any]],
    verdicts: Sequence[Any],
    target: Path,
    prefer: Path | None,
    path: Callable[[Path, str], Path],
    done: Merged,
    full: Collection[Path] = (),
) -> None:
    """Copy the version that all agree on, of those the first in ``full``, or record a conflict."""
    if not versions:
        return
    different = _different(versions, verdicts)
    holders = [place for place, _ in versions]
    if len(different) > 1:
        taken = prefer if prefer in holders else target if target in holders else None
        first, *others = (verdicts[i] for i in different)
        samples = sorted({int(row) for other in others for row in _rows(first, other, versions[0][1])})
        about = _about(versions[0][1])
        done.conflicts.append(Conflict(what, key, about, tuple(holders[i] for i in different), tuple(samples), taken))
    else:
        fullest = [place for place in holders if place in full] or holders
        taken = target if target in fullest else fullest[0]
    if taken is None:
        return
    if taken == target:
        done.same += len(holders) > 1
        return
    write_inside(target, path(target, key), read_inside(taken, path(taken, key), MOST_CELL))
    done.took(what)


def _different(versions: Sequence[Any], verdicts: Sequence[Any]) -> list[int]:
    """Return the index of the first of every distinct version."""
    found: list[int] = []
    for i in range(len(versions)):
        if not any(_equal(verdicts[i], verdicts[j]) for j in found):
            found.append(i)
    return found


def _equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def _rows(one: Any, other: Any, version: Any) -> Iterable[int]:
    """Return the indices of the samples in which two cells differ."""
    if not isinstance(version, Cell):
        return ()
    if np.shape(one) != np.shape(other):
        return version.indices
    rows: Iterable[int] = version.indices[(one != other).any(0)]
    return rows


def _about(version: Any) -> str:
    header = {} if isinstance(version, TrustResult) else version.header
    attack = header.get("attack", {}).get("type", "")
    return " ".join(filter(None, (str(header.get("model", "")), attack))) or "unknown"


def _verdicts(cell: Cell, policies: Iterable[Policy]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the verdicts of a cell, ``(rows, B)``: the label, each exit's class, and the exit taken under each policy."""
    logits = torch.from_numpy(cell.logits)
    taken = [deployed_logits(logits, policy)[1].numpy()[None] for policy in policies]
    return np.concatenate([cell.labels[None], cell.logits.argmax(-1), *taken])


def _numbers(probe: TrustResult) -> str:
    """Return the trust checks' numbers to six digits, as machines differ in the last bits, without durations."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, Mapping):
            return {name: rounded(each) for name, each in value.items() if name not in ("seconds", "digest")}
        return [rounded(each) for each in value] if isinstance(value, list) else value

    return json.dumps(rounded(TRUST_RESULT.content(probe)), sort_keys=True)


def _policies(places: Iterable[Inspected]) -> dict[str, tuple[Policy, ...]]:
    """Return the policies that runs in any of the stores use for the cells of each key."""
    found: dict[str, dict[str, Policy]] = {}
    for place in places:
        for newer in place.newer.values():
            _log.error("%s; its cells are merged by the class that each exit predicts alone", newer)
        for record in place.runs.values():
            policy = parse_policy(record.policy, record.n_exits)
            for attack in record.attacks:
                for key in attack.keys if record.n_exits > 1 else ():
                    found.setdefault(key, {})[record.policy] = policy
    return {key: tuple(policies[text] for text in sorted(policies)) for key, policies in found.items()}


def _keys(places: Iterable[Iterable[str]]) -> list[str]:
    return sorted({key for place in places for key in place})


def _cell(place: Path, key: str) -> Cell:
    path = cell_path(place, key)
    with open_inside(place, path, MOST_CELL) as file:
        return Cell.from_file(file, key, images=False, source=path)


def _held_out(place: Path, key: str) -> HeldOut:
    return HeldOut.from_bytes(read_inside(place, _calibration_path(place, key), MOST_CELL), key)


def _runs(target: Inspected, sources: Iterable[Inspected], refused: Set[tuple[Path, str]], done: Merged) -> None:
    """Copy the records that the target has not, and those that only a newer exitbench reads."""
    whole = {path.name for path in (*target.runs, *target.newer)}
    for place in sources:
        for path in sorted([*place.runs, *place.newer]):
            if path.name in whole or (path in place.runs and (place.root, place.runs[path].weights) in refused):
                continue
            write_inside(target.root, target.root / "runs" / path.name, read_inside(place.root, path))
            whole.add(path.name)
            done.took("run")


def _errors(target: Path, sources: Iterable[Inspected]) -> None:
    """Copy the errors of cells that are still missing."""
    for place in sources:
        for key in sorted(place.errors):
            here = target / "errors" / f"{key}.json"
            if not (cell_path(target, key).exists() or _trust_path(target, key).exists() or here.exists()):
                write_inside(target, here, read_inside(place.root, place.root / "errors" / here.name))


def _trust_path(root: Path, key: str) -> Path:
    return root / "trust" / f"{key}.json"


def _calibration_path(root: Path, key: str) -> Path:
    return root / "calibration" / f"{key}.npz"

"""Merges the stores of several machines: results that agree are copied; conflicts are reported and left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exitbench.errors import UserError
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.policy_text import parse_policy
from exitbench.models.stored import NewerSchema, Unreadable
from exitbench.models.whole_file import write_whole
from exitbench.store.calibration_logits import BadHeldOut, HeldOut
from exitbench.store.cell import BadCell, Cell
from exitbench.store.merge_networks import is_refused, take_networks
from exitbench.store.merged import Conflict, Merged
from exitbench.store.run_record import read_run
from exitbench.store.store import cell_path
from exitbench.store.trust_result import TRUST_RESULT, TrustResult

_log = logging.getLogger(__name__)


def store_root(place: Path) -> Path:
    """Return the store at ``place``, which is a results folder or the store in it.

    Raises:
        UserError: If it is neither.
    """
    for root in (place / "store", place):
        if (root / "cells").is_dir() and (root / "runs").is_dir():
            return root
    raise UserError(f"{place} holds no store; name a results folder, or the store in it")


def merge(target: Path, sources: Sequence[Path], prefer: Path | None = None) -> Merged:
    """Merge the valid files of ``sources`` into the store ``target``.

    Versions of a cell agree if every exit of every sample predicts the same class and every sample leaves at the same exit under
    every policy that some run uses; a version with counterexamples is preferred. In a conflict, the target keeps its own version;
    if it has none, it gets none, and the next run computes the cell again.

    Args:
        target: Root of the store to merge into, the only one that is written.
        sources: Roots of the stores to merge.
        prefer: The store among them whose versions win conflicts, even over the target's own.

    Raises:
        OSError: If the target cannot be written. Files merged until then are kept; a second merge continues.
    """
    done = Merged()
    places = [target, *sources]
    policies = _policies(places, done)
    refused = take_networks(target, sources, prefer, done)
    for key in _keys(places, "cells/*/*.npz"):
        found = _cells(key, places, done)
        versions = [(place, cell) for place, cell in found if (place, cell.header.get("weights")) not in refused]
        verdicts = [_verdicts(cell, policies.get(key, ())) for _, cell in versions]
        _settle("cell", key, versions, verdicts, target, prefer, cell_path, done)
    for key in _keys(places, "trust/*.json"):
        probes = list(_trust_results(key, places, done))
        _settle("trust checks", key, probes, [_numbers(probe) for _, probe in probes], target, prefer, _trust_path, done)
    for key in _keys(places, "calibration/*.npz"):
        held = list(_held_out(key, places, done))
        classes = [each.logits.argmax(-1) for _, each in held]
        _settle("calibration logits", key, held, classes, target, prefer, _calibration_path, done)
    _runs(target, sources, refused, done)
    _errors(target, sources)
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
) -> None:
    """Copy the version that all agree on, or record a conflict."""
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
        fullest = [place for place, version in versions if not getattr(version, "lacks_images", False)] or holders
        taken = target if target in fullest else fullest[0]
    if taken is None:
        return
    if taken == target:
        done.same += len(holders) > 1
        return
    write_whole(path(target, key), path(taken, key).read_bytes())
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
            return {name: rounded(each) for name, each in value.items() if name != "seconds"}
        return [rounded(each) for each in value] if isinstance(value, list) else value

    return json.dumps(rounded(TRUST_RESULT.content(probe)), sort_keys=True)


def _policies(places: Iterable[Path], done: Merged) -> dict[str, tuple[Policy, ...]]:
    """Return the policies that runs in any of the stores use for the cells of each key."""
    found: dict[str, dict[str, Policy]] = {}
    for place in places:
        for path in sorted((place / "runs").glob("*.json")):
            try:
                record = read_run(path)
                policy = parse_policy(record.policy, record.n_exits)
            except NewerSchema as error:
                _log.error("%s; its cells are merged by the class that each exit predicts alone", error)
                continue
            except (OSError, ValueError) as error:
                done.damaged.append(str(error) if isinstance(error, Unreadable) else f"{path} ({error})")
                continue
            for attack in record.attacks:
                for key in attack.keys if record.n_exits > 1 else ():
                    found.setdefault(key, {})[record.policy] = policy
    return {key: tuple(policies[text] for text in sorted(policies)) for key, policies in found.items()}


def _is_whole(path: Path) -> bool:
    """Whether a run's record can be read, here or by a newer exitbench."""
    try:
        read_run(path)
    except NewerSchema:
        return True
    except (OSError, Unreadable):
        return False
    return True


def _keys(places: Iterable[Path], pattern: str) -> list[str]:
    return sorted({path.stem for place in places for path in place.glob(pattern)})


def _cells(key: str, places: Iterable[Path], done: Merged) -> Iterator[tuple[Path, Cell]]:
    for place in places:
        path = cell_path(place, key)
        try:
            yield place, Cell.from_bytes(path.read_bytes(), key)
        except FileNotFoundError:
            continue
        except BadCell as error:
            done.damaged.append(f"{path} ({error})")


def _trust_results(key: str, places: Iterable[Path], done: Merged) -> Iterator[tuple[Path, TrustResult]]:
    for place in places:
        path = _trust_path(place, key)
        try:
            result = TRUST_RESULT.read_text(path.read_bytes(), path)
        except FileNotFoundError:
            continue
        except (OSError, Unreadable) as error:
            done.damaged.append(str(error))
            continue
        if result.key == key:
            yield place, result
        else:
            done.damaged.append(f"{path} (it is another's)")


def _held_out(key: str, places: Iterable[Path], done: Merged) -> Iterator[tuple[Path, HeldOut]]:
    for place in places:
        path = _calibration_path(place, key)
        try:
            yield place, HeldOut.from_bytes(path.read_bytes(), key)
        except FileNotFoundError:
            continue
        except BadHeldOut as error:
            done.damaged.append(f"{path} ({error})")


def _runs(target: Path, sources: Iterable[Path], refused: Set[tuple[Path, str]], done: Merged) -> None:
    for place in sources:
        for path in sorted((place / "runs").glob("*.json")):
            here = target / "runs" / path.name
            if here.exists() and _is_whole(here):
                continue
            if _is_whole(path) and not is_refused(place, path, refused):
                write_whole(here, path.read_bytes())
                done.took("run")


def _errors(target: Path, sources: Iterable[Path]) -> None:
    """Copy the errors of cells that are still missing."""
    for place in sources:
        for path in sorted((place / "errors").glob("*.json")):
            here = target / "errors" / path.name
            if not (cell_path(target, path.stem).exists() or _trust_path(target, path.stem).exists() or here.exists()):
                write_whole(here, path.read_bytes())


def _trust_path(root: Path, key: str) -> Path:
    return root / "trust" / f"{key}.json"


def _calibration_path(root: Path, key: str) -> Path:
    return root / "calibration" / f"{key}.npz"

"""Baselines: what an evaluation measured, as a small JSON file that is committed beside the code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exitbench.analysis.regression.snapshot import SNAPSHOT_FIELDS, Snapshot
from exitbench.attacks.regions import ThreatModel
from exitbench.errors import UserError
from exitbench.models.spec import digest
from exitbench.scoring.ranking import WORST
from exitbench.scoring.rows import Row
from exitbench.store.run_record import CLEAN, board_name, eps_text

FORMAT, SCHEMA = "exitbench baseline", 1

_AGAIN = "restore it from version control, or write it again with `bench check --update`"


def to_text(measured: Snapshot) -> str:
    """The file: verdicts as one digit per sample (1: right), exits as numbers from 1, and a digest over it all."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "subject": dict(measured.subject),
        "settings": dict(measured.settings),
        "attacks": dict(measured.attacks),
        "verdicts": {name: _written(row) for name, row in measured.rows.items()},
        "computed_with": measured.computed_with,
    }
    return json.dumps({**content, "digest": digest(content)}, indent=1) + "\n"


def from_text(text: str, source: str) -> Snapshot:
    """Read a baseline back.

    Args:
        text: of the file.
        source: its name, for messages.

    Raises:
        UserError: not a baseline, of another schema, damaged or edited by hand.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON ({error}); {_AGAIN}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{source} is no baseline of exitbench; name one with --baseline")
    if content.get("schema") != SCHEMA:
        raise UserError(
            f"{source} is a baseline of schema {content.get('schema')!r}, this exitbench reads {SCHEMA}; "
            "use the exitbench that wrote it, or write it again with `bench check --update`"
        )
    if digest({name: value for name, value in content.items() if name != "digest"}) != content.get("digest"):
        raise UserError(f"{source} was edited or damaged: its content is not that of its digest; {_AGAIN}")
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{source} is incomplete ({error!r}); {_AGAIN}") from error


def _written(row: Row) -> dict[str, str]:
    written = {"right": "".join("1" if right else "0" for right in row.right)}
    if row.exits is not None:
        written["exits"] = " ".join(str(k + 1) for k in row.exits)
    return written


def _read(content: Mapping[str, Any]) -> Snapshot:
    subject = {name: content["subject"][name] for name in SNAPSHOT_FIELDS}
    rows = {name: _row(row, subject["n"], len(subject["mmacs"])) for name, row in content["verdicts"].items()}
    if list(rows) != [CLEAN, *content["attacks"], WORST]:
        raise ValueError(f"verdicts of {', '.join(rows)} for the attacks {', '.join(content['attacks'])}")
    return Snapshot(subject, content["settings"], content["attacks"], rows, content["computed_with"])


def _row(written: Mapping[str, str], n: int, n_exits: int) -> Row:
    if len(written["right"]) != n or set(written["right"]) - set("01"):
        raise ValueError(f"verdicts that are not {n} digits of 0 and 1")
    right = np.array([digit == "1" for digit in written["right"]])
    if "exits" not in written:
        return Row(right, None)
    exits = np.array([int(number) - 1 for number in written["exits"].split()], dtype=np.int64)
    if len(exits) != n or exits.min() < 0 or exits.max() >= n_exits:
        raise ValueError(f"exits that are not {n} numbers of 1..{n_exits}")
    return Row(right, exits)


def default_path(folder: Path, subject: Mapping[str, Any]) -> Path:
    """``<model>-<training>-<dataset>-<norm>-<eps>.json``: one baseline for each place on a leaderboard."""
    board = board_name(subject["dataset"], ThreatModel(subject["norm"], subject["eps"]))
    return folder / f"{_safe(subject['model'])}-{_safe(subject['training'])}-{board}.json"


def read_baseline(path: Path) -> Snapshot:
    """The baseline in a file.

    Raises:
        UserError: not to be read; see ``from_text``.
    """
    try:
        return from_text(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def find_baseline(folder: Path, wanted: Mapping[str, Any]) -> tuple[Path, Snapshot] | None:
    """The one baseline in ``folder`` whose subject is as ``wanted``, or None for none.

    Args:
        folder: of the baselines; need not exist.
        wanted: ``model``, and some of ``training``, ``dataset``, ``norm``, ``eps``.

    Raises:
        UserError: several, or one of this model that cannot be read.
    """
    found = []
    for path in sorted(folder.glob(f"{_safe(wanted['model'])}-*.json")):
        baseline = read_baseline(path)
        if all(baseline.subject[name] == value for name, value in wanted.items()):
            found.append((path, baseline))
    if len(found) > 1:
        names = ", ".join(str(path) for path, _ in found)
        raise UserError(f"several baselines are of {describe(wanted)}: {names}; name one with --baseline")
    return found[0] if found else None


def describe(wanted: Mapping[str, Any]) -> str:
    """What is wanted, in words."""
    words = {**wanted, "eps": eps_text(wanted["eps"])} if "eps" in wanted else dict(wanted)
    return ", ".join(str(value) for value in words.values())


def _safe(name: str) -> str:
    """A name as part of a file name; that of a model may hold a path."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".") or "_"

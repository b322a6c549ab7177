"""Baselines: the results of an evaluation as a small JSON file, to be committed beside the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from exitbench.analysis.regression.baseline_checks import check_snapshot, exits_in
from exitbench.analysis.regression.snapshot import Snapshot, SnapshotSubject
from exitbench.errors import UserError
from exitbench.models.field_types import Key, Line, Spec, Text
from exitbench.models.number_text import eps_text
from exitbench.models.spec import digest
from exitbench.models.stored import Content, Format, NewerSchema, Stored, Unreadable, parsed
from exitbench.scoring.ranking import WORST
from exitbench.scoring.rows import Row
from exitbench.store.identity import Identity
from exitbench.store.inside import read_small
from exitbench.store.migrations import baseline_1_to_2
from exitbench.store.run_record import CLEAN, board_name

FORMAT: Literal["exitbench baseline"] = "exitbench baseline"

_AGAIN = "restore it from version control, or write it again with `exitbench check --update`"


Verdicts = Annotated[str, Meta(max_length=2**23)]
"""Of all samples."""


class StoredRow(Stored, frozen=True, kw_only=True):
    """Verdicts on the samples as text.

    Attributes:
        right: one digit per sample, 1 where it is right.
        exits: the exit taken by each, from 1, separated by spaces; None for the worst case.
    """

    right: Verdicts
    exits: Verdicts | None = None


class Baseline(Stored, frozen=True, kw_only=True):
    """A snapshot as it is committed.

    Attributes:
        format: tells a baseline from any other JSON file.
        subject, settings, attacks, computed_with: see ``Snapshot``.
        verdicts: the rows of the snapshot.
        digest: of everything else in the file.
    """

    format: Literal["exitbench baseline"]
    subject: SnapshotSubject
    settings: Spec
    attacks: dict[Line, Spec]
    verdicts: dict[Line, StoredRow]
    computed_with: Text
    digest: Key


BASELINE = Format("a baseline", Baseline, {1: baseline_1_to_2}, sort=False)


def to_text(measured: Snapshot) -> str:
    """Return the file's text: verdicts as one digit per sample (1 for right), exits from 1, and a digest over all of it."""
    baseline = Baseline(
        format=FORMAT,
        subject=measured.subject,
        settings=dict(measured.settings),
        attacks=dict(measured.attacks),
        verdicts={name: _written(row) for name, row in measured.rows.items()},
        computed_with=measured.computed_with,
        digest="",
    )
    content = BASELINE.content(baseline)
    return BASELINE.text_of({**content, "digest": _digest(content)}).decode()


def from_text(text: str, source: str) -> Snapshot:
    """Read a baseline.

    Args:
        text: Text of the file.
        source: Name of the file, for messages.

    Raises:
        UserError: If the text is not a baseline, is of another schema, or was damaged or edited.
    """
    try:
        content = parsed(text, source)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{source} is no baseline of exitbench; name one with --baseline")
        BASELINE.checked(content, source)
        if _digest(content) != content.get("digest"):
            raise UserError(f"{source} was edited or damaged: its content is not that of its digest; {_AGAIN}")
        return _snapshot(BASELINE.read(content, source))
    except NewerSchema as error:
        raise UserError(f"{error}, or write it again with `exitbench check --update`") from error
    except Unreadable as error:
        raise UserError(f"{error}; {_AGAIN}") from error
    except (ValueError, OverflowError) as error:
        raise UserError(f"{source} cannot be read: {error}; {_AGAIN}") from error


def _digest(content: Content) -> str:
    return digest({name: value for name, value in content.items() if name != "digest"})


def _written(row: Row) -> StoredRow:
    exits = None if row.exits is None else " ".join(str(k + 1) for k in row.exits)
    return StoredRow(right="".join("1" if right else "0" for right in row.right), exits=exits)


def _snapshot(baseline: Baseline) -> Snapshot:
    subject, names = baseline.subject, list(baseline.attacks)
    rows = {name: _row(row, subject.n, subject.n_exits) for name, row in baseline.verdicts.items()}
    if list(rows) != [CLEAN, *names, WORST]:
        raise ValueError(f"verdicts of {', '.join(rows)} for the attacks {', '.join(names)}")
    snapshot = Snapshot(subject, baseline.settings, baseline.attacks, rows, baseline.computed_with)
    check_snapshot(snapshot)
    return snapshot


def _row(written: StoredRow, n: int, n_exits: int) -> Row:
    if len(written.right) != n or set(written.right) - set("01"):
        raise ValueError(f"verdicts that are not {n} digits of 0 and 1")
    right = np.array([digit == "1" for digit in written.right])
    if written.exits is None:
        return Row(right, None)
    exits = exits_in(written.exits)
    if len(exits) != n or exits.min() < 0 or exits.max() >= n_exits:
        raise ValueError(f"exits that are not {n} numbers of 1..{n_exits}")
    return Row(right, exits)


def default_path(folder: Path, subject: Identity) -> Path:
    """Return ``<model>-<training>-<board>.json`` in ``folder``: one baseline per entry of a leaderboard."""
    board = board_name(subject.dataset, subject.threat)
    return folder / f"{_safe(subject.model)}-{_safe(subject.training)}-{board}.json"


def read_baseline(path: Path) -> Snapshot:
    """Read the baseline in a file.

    Raises:
        UserError: If it cannot be read; see ``from_text``.
    """
    try:
        return from_text(read_small(path).decode(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except Unreadable as error:
        raise UserError(str(error)) from error


def find_baseline(folder: Path, wanted: Mapping[str, Any]) -> tuple[Path, Snapshot] | None:
    """Find the baseline in ``folder`` whose subject matches ``wanted``, or return None.

    Args:
        folder: The folder of baselines; it need not exist.
        wanted: ``model``, and some of ``training``, ``dataset``, ``norm``, ``eps``, ``grid``. Where no grid is wanted, one
            without a grid is preferred to others.

    Raises:
        UserError: If several match, or one of this model cannot be read.
    """
    found = []
    for path in sorted(folder.glob(f"{_safe(wanted['model'])}-*.json")):
        baseline = read_baseline(path)
        if all(getattr(baseline.subject, name) == value for name, value in wanted.items()):
            found.append((path, baseline))
    if len(found) > 1 and "grid" not in wanted:
        found = [each for each in found if each[1].subject.grid is None] or found
    if len(found) > 1:
        names = ", ".join(str(path) for path, _ in found)
        raise UserError(f"several baselines are of {describe(wanted)}: {names}; name one with --baseline")
    return found[0] if found else None


def describe(wanted: Mapping[str, Any]) -> str:
    """Describe the wanted subject."""
    words = {**wanted, "eps": eps_text(wanted["eps"])} if "eps" in wanted else dict(wanted)
    words |= {"grid": f"grid {wanted['grid']}"} if "grid" in wanted else {}
    return ", ".join(str(value) for value in words.values())


def _safe(name: str) -> str:
    """Return a name fit for a file name; that of a model may be a path."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".") or "_"

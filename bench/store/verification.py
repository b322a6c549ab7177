"""What was verified here: a file in ``verified/`` of the store, named by the digest of the evidence that was looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from exitbench.models.spec import digest
from exitbench.models.stored import Format, Stored, Unreadable
from exitbench.store.cell import Cell
from exitbench.store.inside import read_inside, write_inside
from exitbench.store.run_record import RunRecord, evaluation_key

_FOLDER = "verified"
_ARRAYS = ("indices", "labels", "inputs", "logits", "distances", "passes", "broken_rows")


class Verification(Stored, frozen=True, kw_only=True):
    """A verification without a mismatch.

    Attributes:
        evidence: digest of the evaluation and of its cells (``evidence_digest``).
        counterexamples: number of images that were looked at.
        figures_alone: names of attacks whose images were not at hand; what they break, others broke as well.
    """

    evidence: str
    counterexamples: int
    figures_alone: tuple[str, ...] = ()


VERIFICATION = Format("a verification", Verification)


def evidence_digest(
    records: Sequence[RunRecord], read: Callable[[str], Cell | None], known: Mapping[str, str] | None = None
) -> str:
    """Return the digest of an evaluation: of what it is about, and of all but the images of its finished cells.

    Args:
        records: All records of the evaluation.
        read: Reads a cell by its key; its images are not looked at.
        known: Digests of cells that were read before (``cell_digest``), by key.
    """
    keys = {key for record in records for attack in record.attacks for key in attack.keys}
    cells = {key: found for key, found in (known or {}).items() if key in keys}
    cells |= {key: cell_digest(cell) for key in keys if key not in cells and (cell := read(key)) is not None}
    trust = sorted({record.trust for record in records if record.trust is not None})
    return digest({"evaluation": evaluation_key(records[0]), "cells": cells, "trust": trust})


def cell_digest(cell: Cell) -> str:
    """Return the digest of all of a cell but its images and its header."""
    summed = hashlib.sha256()
    for name in _ARRAYS:
        array = getattr(cell, name)
        summed.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return summed.hexdigest()


def write_verification(root: Path, verification: Verification) -> None:
    """Keep a verification in the store at ``root``."""
    write_inside(root, _path(root, verification.evidence), VERIFICATION.text(verification))


def find_verification(root: Path, evidence: str) -> Verification | None:
    """Return the verification of exactly this evidence in the store at ``root``, or None if it holds none."""
    path = _path(root, evidence)
    try:
        found = VERIFICATION.read_text(read_inside(root, path), path)
    except (OSError, Unreadable):
        return None
    return found if found.evidence == evidence else None


def _path(root: Path, evidence: str) -> Path:
    return root / _FOLDER / f"{evidence}.json"

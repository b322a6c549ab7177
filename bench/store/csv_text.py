"""How texts stand in CSV files, so that neither a spreadsheet nor a data frame takes them for something else."""

from __future__ import annotations

from collections.abc import Mapping

DIGEST = "sha256:"
"""Stands before digests: without it, ``6944e2726129`` is a number, and a large one."""

DIGESTS = ("weights", "data", "calibration")
"""The columns that hold digests."""

MARK = "'"
"""Stands before a text that would be read as a formula, a number, a truth value or as missing."""

SHORT = 12
"""Digits of the digests of weights and of data."""


def digest_text(digest: str | None, digits: int = SHORT) -> str:
    """Return the first digits of a SHA-256 (hex) as a cell tells them; empty where there is no digest."""
    return DIGEST + digest[:digits] if digest else ""


def plain(cell: str) -> str:
    """Return the text of a cell, without its mark."""
    return cell.removeprefix(MARK)


def text_in(row: Mapping[str, str], name: str) -> str:
    """Return the text of a row in a column; a digest has its prefix, also where an earlier version wrote it without."""
    text = plain(row[name])
    return digest_text(text.removeprefix(DIGEST), len(text)) if name in DIGESTS else text

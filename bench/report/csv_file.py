"""Writes a leaderboard as CSV: six decimals, Unix line ends, nothing that a spreadsheet would run."""

from __future__ import annotations

import pandas as pd


def to_csv(table: pd.DataFrame) -> str:
    """The table as CSV text."""
    safe = table.map(_inert)
    return str(safe.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def _inert(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets a leading quote mark."""
    return (
        f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) and value != "-" else value
    )

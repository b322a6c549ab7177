"""Writes a table as CSV: six decimals, Unix line ends, nothing that is taken for something else when it is read."""

from __future__ import annotations

import io

import pandas as pd

from exitbench.store.csv_text import MARK

NUMBERS = frozenset({"seed", "eps", "eps_text", "grid", "n", "exits", "number_forward_passes", "additional_data"})
"""Columns of numbers and truth values that are written as they are given; a radius such as 8/255 is one."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(table: pd.DataFrame, digits: str = "%.6f") -> str:
    """Return the table as CSV text, its numbers that are no whole ones in the format ``digits``.

    A text has a quote mark before it if a spreadsheet would take it for a formula, or if ``pandas.read_csv`` would read it as a
    number, a truth value or as missing, as it would a network called ``nan`` or a column in which all texts are digits.
    """
    safe = table.map(_inert)
    for name in safe.columns:
        if name not in NUMBERS:
            safe[name] = _read_as_text(safe[name])
    return _written(safe, digits)


def _read_as_text(column: pd.Series) -> pd.Series:
    """Return a column whose texts are read back as these texts; a column of anything else is returned as it is."""
    texts = [cell for cell in column if isinstance(cell, str) and cell]
    if not texts:
        return column
    read = pd.read_csv(io.StringIO(_written(pd.DataFrame({"text": texts}))), skip_blank_lines=False)["text"]
    wrong = {text for text, found in zip(texts, read, strict=True) if text != found}
    return column.map(lambda cell: MARK + cell if isinstance(cell, str) and cell in wrong else cell)


def _written(table: pd.DataFrame, digits: str = "%.6f") -> str:
    return str(table.to_csv(index=False, float_format=digits, lineterminator="\n"))


def _inert(value: object) -> object:
    """Return a text with a quote mark before it if a spreadsheet would take it for a formula, or if it begins with one."""
    if isinstance(value, str) and value.startswith((*_FORMULA, MARK)) and value != "-":
        return MARK + value
    return value

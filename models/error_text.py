"""Summarises in one line an error that the user's or another package's code raised."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])

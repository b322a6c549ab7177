"""What somebody else's code raised, in a line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """What an error is and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])

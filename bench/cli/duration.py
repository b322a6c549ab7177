"""Lengths of time as they are printed."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return ``seconds`` with one decimal, in hours or minutes where it is one of them or more: ``1.5 min``."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"

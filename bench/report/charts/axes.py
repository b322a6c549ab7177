"""What can stand on the axes of a chart, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COSTS: Mapping[str, str] = {
    "mmacs": "mean cost on clean images (million MACs)",
    "slowed": "mean cost under the costliest slowdown attack (million MACs)",
    "certified_mmacs": "certified mean cost (million MACs)",
    "ms": "mean time of an image on its own (milliseconds)",
    "parameters": "parameters (millions)",
}
"""Across, by the field of a row."""

SHARES: Mapping[str, str] = {
    "worst": "worst-case accuracy",
    "clean": "clean accuracy",
    "certified": "certified accuracy",
    "slowdown": "accuracy under the costliest slowdown attack",
    "range": "clean to worst-case accuracy",
}
"""Up, by the field of a row, shares in [0, 1]."""


def present(names: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return those of ``names`` that some row has a number for."""
    return {key: title for key, title in names.items() if any(row.get(key) is not None for row in rows)}

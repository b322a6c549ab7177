"""A flag: one finding about whether a number can be believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Level = Literal["info", "warning", "failure"]

LEVELS: tuple[Level, ...] = get_args(Level)
"""In the order of weight."""


@dataclass(frozen=True)
class Flag:
    """One finding.

    Attributes:
        name: of the check, the same for every model, such as ``zero gradients``.
        level: ``failure``: the number cannot be believed; ``warning``: the true robust accuracy may be lower;
            ``info``: worth knowing.
        numbers: what was measured.
        message: one sentence with the numbers, and what to do.
        where: which part of the model, such as ``at exit 2``; empty for all of it.
    """

    name: str
    level: Level
    numbers: Mapping[str, float]
    message: str
    where: str = ""

    @property
    def label(self) -> str:
        """Name and place."""
        return f"{self.name} {self.where}".strip()


def exits_text(exits: Iterable[int]) -> str:
    """``at exit 2`` or ``at exits 1, 3``, from 0-based indices."""
    named = [str(k + 1) for k in exits]
    return f"at exit{'s' if len(named) > 1 else ''} {', '.join(named)}"

"""A flag: one finding about whether a number can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Level = Literal["info", "warning", "failure"]

LEVELS: tuple[Level, ...] = get_args(Level)
"""Levels by increasing severity."""


@dataclass(frozen=True)
class Flag:
    """A finding of a check.

    Attributes:
        name: Name of the check, the same for every model, such as ``zero gradients``.
        level: ``failure`` if the number is not valid; ``warning`` if the true robust accuracy may be lower; ``info`` for the
            record.
        numbers: The measured values.
        message: One sentence with the values, and what to do.
        where: The part of the model, such as ``at exit 2``; empty for the whole model.
    """

    name: str
    level: Level
    numbers: Mapping[str, float]
    message: str
    where: str = ""

    @property
    def label(self) -> str:
        """Name of the check and part of the model."""
        return f"{self.name} {self.where}".strip()


def exits_text(exits: Iterable[int]) -> str:
    """Return ``at exit 2`` or ``at exits 1, 3``, from 0-based indices."""
    named = [str(k + 1) for k in exits]
    return f"at exit{'s' if len(named) > 1 else ''} {', '.join(named)}"

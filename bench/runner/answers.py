"""What a process that computes cells for another one answers, and its cells in memory in place of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exitbench.store.cell import Cell
from exitbench.store.cell_error import CellError


@dataclass(frozen=True)
class CellStarted:
    """The worker has started the cell with this key."""

    key: str


@dataclass(frozen=True)
class Finished:
    """The worker has finished the cell with this key; it is sent as its file."""

    key: str
    raw: bytes


@dataclass(frozen=True)
class Failed:
    """The cell with this key ended in an error."""

    key: str
    what: CellError


Answer = CellStarted | Finished | Failed


class Held:
    """The cells of a worker in memory, in place of a store.

    Args:
        stored: Files of cells that were finished before.
    """

    def __init__(self, stored: Mapping[str, bytes]) -> None:
        self._files = dict(stored)
        self._errors: dict[str, CellError] = {}

    def read(self, key: str) -> Cell | None:
        """Return the cell, or None if there is none."""
        return Cell.from_bytes(self._files[key], key) if key in self._files else None

    def write(self, cell: Cell) -> None:
        """Keep a finished cell."""
        self._files[cell.key] = cell.to_bytes()

    def write_error(self, key: str, what: CellError) -> None:
        """Keep the error of a cell."""
        self._errors[key] = what

    def answer(self, key: str) -> Finished | Failed:
        """Return the outcome of a cell."""
        return Failed(key, self._errors[key]) if key in self._errors else Finished(key, self._files[key])

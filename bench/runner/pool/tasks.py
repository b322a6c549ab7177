"""Cuts the missing cells of a plan into tasks for several processes, the longest of a few slices first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.runner.batching import GATHERED
from exitbench.runner.plan import PlannedCell, Slice
from exitbench.runner.runner import stacks


@dataclass(frozen=True, eq=False)
class Task:
    """Cells that one process computes one after the other."""

    cells: tuple[PlannedCell, ...]

    @property
    def work(self) -> float:
        """Expected gradients."""
        return sum(cell.work for cell in self.cells)


def tasks(cells: Sequence[PlannedCell]) -> list[Task]:
    """Return the tasks of the missing cells, without selections, which take no work.

    ``GATHERED`` slices follow one another, and the longest tasks of each come first, so that processes end together. Attacks that
    start from the same other one are a task, as its candidates are then computed once; an attack that gains by it gets all of
    these slices at once, any other one at a time.
    """
    found: list[Task] = []
    for together in stacks(cells, lambda: GATHERED):
        parts: dict[tuple[Slice | None, Attack], list[PlannedCell]] = {}
        for cell in together:
            if not cell.done and not isinstance(cell.attack, BestOf):
                own = None if cell.attack.gathers else cell.slice
                parts.setdefault((own, cell.attack if own is None else _origin(cell.attack)), []).append(cell)
        found += sorted((Task(tuple(part)) for part in parts.values()), key=lambda task: -task.work)
    return found


@dataclass(frozen=True, eq=False)
class Selection:
    """A missing selection among attacks, and the cells that it selects from."""

    cell: PlannedCell
    parts: tuple[PlannedCell, ...]


def selections(cells: Sequence[PlannedCell]) -> list[Selection]:
    """Return the missing selections, in order."""
    of_slice: dict[tuple[Slice, Attack], PlannedCell] = {(cell.slice, cell.attack): cell for cell in cells}
    missing = [cell for cell in cells if not cell.done and isinstance(cell.attack, BestOf)]
    return [Selection(cell, tuple(of_slice[cell.slice, child] for child in cell.attack.children)) for cell in missing]


def _origin(attack: Attack) -> Attack:
    """Return the attack that this one starts from in the end; itself where it starts from none."""
    return _origin(attack.children[0]) if attack.children else attack

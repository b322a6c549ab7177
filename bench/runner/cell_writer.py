"""Finishes and stores cells in a thread of its own, in order, so that no device waits for compression or for the disk."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from exitbench.models.spec import description
from exitbench.runner.plan import PlannedCell
from exitbench.store.cell import Cell
from exitbench.store.cell_error import CellError
from exitbench.store.store import Cells

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a planned cell; ``error`` is None if the cell is stored."""

    cell: PlannedCell
    error: str | None


class CellWriter:
    """A context that finishes cells in the order in which they are put, while the caller computes others.

    A cell is reported when it is on disk. After one that cannot be written, none is. On leaving, those that were put are
    finished.

    Args:
        store: The store of cells.
    """

    def __init__(self, store: Cells) -> None:
        self.store = store
        self._left: deque[Future[Outcome]] = deque()
        self._broken = False

    def __enter__(self) -> CellWriter:
        self._thread = ThreadPoolExecutor(1, "cells")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()

    def put(self, planned: PlannedCell, make: Callable[[], Cell]) -> None:
        """Have ``make`` called and its cell stored; what it raises is the cell's error."""
        self._left.append(self._thread.submit(self._in_order, partial(self._made, planned, make)))

    def fail(self, planned: PlannedCell, error: Exception) -> None:
        """Have the error of a cell stored that could not be computed."""
        self._left.append(self._thread.submit(self._in_order, partial(self._failed, planned, error)))

    def finished(self, most: int) -> Iterator[Outcome]:
        """Yield the outcomes of finished cells, in order, and wait until at most ``most`` are left.

        Raises:
            OSError: If a cell could not be written; those after it are not written.
        """
        while self._left and (len(self._left) > most or self._left[0].done()):
            try:
                outcome = self._left[0].result()  # an interrupt while it waits leaves it there
            except KeyboardInterrupt:
                raise
            except BaseException:
                self._left.clear()
                raise
            self._left.popleft()
            yield outcome

    def _in_order(self, finish: Callable[[], Outcome]) -> Outcome:
        if self._broken:
            raise RuntimeError("a cell before this one could not be written")
        self._broken = True
        outcome = finish()
        self._broken = False
        return outcome

    def _made(self, planned: PlannedCell, make: Callable[[], Cell]) -> Outcome:
        try:
            cell = make()
        except Exception as error:  # noqa: BLE001 - whatever it raises is its result
            return self._failed(planned, error)
        self.store.write(cell)
        return Outcome(planned, None)

    def _failed(self, planned: PlannedCell, error: Exception) -> Outcome:
        _log.info("%s failed", planned.name, exc_info=error)
        message = f"{type(error).__name__}: {error}"
        self.store.write_error(planned.key, CellError(attack=planned.name, spec=description(planned.attack), error=message))
        return Outcome(planned, message)

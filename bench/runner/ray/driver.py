"""The driver: it keeps a bounded number of shards in flight, stores results, and resubmits the work of lost workers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from exitbench.errors import UserError
from exitbench.models.error_text import first_line
from exitbench.models.errors import InputError
from exitbench.models.spec import description
from exitbench.runner.answers import Answer, CellStarted, Finished
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.plan import Plan, PlannedCell
from exitbench.runner.ray.connect import Resources, slots
from exitbench.runner.ray.job import Job, shard_of, shards
from exitbench.runner.ray.worker import work
from exitbench.store.cell_error import CellError
from exitbench.store.store import Store

_log = logging.getLogger(__name__)

AHEAD = 2
"""Shards in flight for each that the cluster can run: one running and one waiting, so that no worker is idle."""

LOSSES = 4
"""Number of workers lost in a row, without a finished cell, after which the current cell is given up."""

_LOOK_S = 10.0


@dataclass(eq=False)
class Flight:
    """A shard in flight.

    Attributes:
        cells: The planned cells of the shard.
        left: Those that are not finished, by key.
        at: Key of the current cell; None before the first.
        losses: Number of workers lost since the last finished cell.
    """

    cells: Sequence[PlannedCell]
    left: dict[str, PlannedCell]
    at: str | None = None
    losses: int = 0


class RayRunner:
    """A runner that executes a plan on a Ray cluster, as ``exitbench.runner.runner.Runner`` does on this machine.

    Args:
        ray: The module ``ray``, connected to a cluster.
        job: The job that is sent to workers.
        store: The store of cells; only the driver writes to it.
        resources: Resources of each shard.
        slices: Slices per shard.
        tell: Called with messages of one line for the user.
    """

    def __init__(
        self, ray: ModuleType, job: Job, store: Store, resources: Resources, slices: int, tell: Callable[[str], None]
    ) -> None:
        self.ray, self.job, self.store, self.resources, self.slices, self.tell = ray, job, store, resources, slices, tell
        self.most_in_flight = 0
        self._flights: dict[Any, Flight] = {}
        self._limit, self._looked = 0, -_LOOK_S

    def begun(self, _plan: Plan) -> AbstractContextManager[None]:
        """Begin nothing: shards are sent once ``run`` is called."""
        return nullcontext()

    def run(self, plan: Plan, on_start: Callable[[PlannedCell], None], on_outcome: Callable[[Outcome], None]) -> None:
        """Run every missing cell, and report starts and outcomes as they happen.

        Every finished cell is stored as it arrives. If a worker is lost, another one continues its shard.

        Raises:
            UserError: If a machine has other code, weights or data than this one, or cannot be used; finished cells are kept.
        """
        self._on_start, self._on_outcome = on_start, on_outcome
        again: deque[Flight] = deque()
        fresh = self._fresh(plan)
        remote = self.ray.remote(num_returns="streaming", max_retries=0, max_calls=0)(work)
        self._task = remote.options(num_cpus=self.resources.cpus, num_gpus=self.resources.gpus)
        self._job = self.ray.put(self.job)
        try:
            while True:
                while len(self._flights) < self._allowed() and (flight := again.popleft() if again else next(fresh, None)):
                    self._launch(flight)
                if not self._flights:
                    return
                for answers in self.ray.wait(list(self._flights), timeout=_LOOK_S, fetch_local=False)[0]:
                    if (lost := self._next(answers)) is not None:
                        again.append(lost)
        except BaseException:
            self._land()
            raise

    def _fresh(self, plan: Plan) -> Iterator[Flight]:
        """Yield the shards of the plan, made on demand."""
        for cells in shards(plan.cells, self.slices):
            yield Flight(cells, {cell.key: cell for cell in cells if not cell.done})

    def _allowed(self) -> int:
        """Return the number of shards that may be in flight; the cluster may grow and shrink."""
        if time.monotonic() - self._looked >= _LOOK_S:
            at_once = slots(self.ray, self.resources)
            if not at_once and not self._limit:
                wants = f"{self.resources.cpus:g} CPUs and {self.resources.gpus:g} GPUs"
                self.tell(f"no machine of the cluster has {wants}; waiting for one (Ctrl-C ends it)")
            self._limit, self._looked = max(AHEAD, AHEAD * at_once), time.monotonic()
        return self._limit

    def _launch(self, flight: Flight) -> None:
        flight.at = None
        # Slice by slice after a loss, to find the one that causes it.
        stack = 1 if flight.losses else self.slices
        shard = shard_of(flight.cells, flight.left, self.store, stack)
        self._flights[self._task.remote(self._job, shard)] = flight
        self.most_in_flight = max(self.most_in_flight, len(self._flights))

    def _next(self, answers: Any) -> Flight | None:
        """Take the next answer of a flight, and return the flight if its worker was lost and it is not finished."""
        errors = self.ray.exceptions
        flight = self._flights[answers]
        try:
            self._take(flight, self.ray.get(next(answers)))
        except StopIteration:
            del self._flights[answers]
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, InputError) else None
            raise UserError(str(cause or f"a worker could not run its shard: {first_line(error.cause or error)}")) from error
        except errors.RayError as error:
            del self._flights[answers]
            return self._lost(flight, error)
        return None

    def _take(self, flight: Flight, answer: Answer) -> None:
        cell = flight.left.get(answer.key)
        if cell is None:
            return
        if isinstance(answer, CellStarted):
            flight.at = answer.key
            self._on_start(cell)
            return
        if isinstance(answer, Finished):
            self.store.write_bytes(answer.key, answer.raw)
            error = None
        else:
            self.store.write_error(answer.key, answer.what)
            error = answer.what.error
        del flight.left[answer.key]
        flight.at, flight.losses = None, 0
        self._on_outcome(Outcome(cell, error))

    def _lost(self, flight: Flight, error: Exception) -> Flight | None:
        """Continue what is left of a flight; a cell that loses its worker every time is recorded as an error."""
        flight.losses += 1
        first = next(iter(flight.left.values()), None)
        if first is None:
            return None
        where = f"{first.slice.start}-{flight.cells[-1].slice.stop - 1}"
        _log.warning("worker lost on %s, %d cells left: %s", where, len(flight.left), first_line(error))
        if flight.losses < LOSSES:
            self.tell(f"a worker was lost on {where}; another goes on with its {len(flight.left)} cells left")
            return flight
        for key in list(flight.left) if flight.at is None else [flight.at]:
            cell = flight.left.pop(key)
            message = f"WorkerLost: {LOSSES} workers in a row were lost at it ({type(error).__name__}: {first_line(error)})"
            self.store.write_error(key, CellError(attack=cell.name, spec=description(cell.attack), error=message))
            self._on_outcome(Outcome(cell, message))
        flight.losses = 0
        return flight if flight.left else None

    def _land(self) -> None:
        """Store what has arrived and cancel the rest."""
        for answers in self._flights:
            self.ray.cancel(answers, force=True)
        for answers, flight in self._flights.items():
            try:
                while self.ray.wait([answers], timeout=0, fetch_local=False)[0]:
                    self._take(flight, self.ray.get(next(answers), timeout=_LOOK_S))
            except (StopIteration, OSError, self.ray.exceptions.RayError):
                continue
        self._flights.clear()

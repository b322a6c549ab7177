"""The driver's side: a bounded number of shards in flight, what comes back stored, what a lost worker left sent again."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from exitbench.errors import UserError
from exitbench.models.error_text import first_line
from exitbench.models.spec import description
from exitbench.runner.plan import Plan, PlannedCell
from exitbench.runner.ray.connect import Resources, slots
from exitbench.runner.ray.job import Answer, CellStarted, Finished, Job, shard_of, shards
from exitbench.runner.ray.worker import work
from exitbench.runner.runner import Outcome
from exitbench.store.cell_error import CellError
from exitbench.store.store import Store

_log = logging.getLogger(__name__)

AHEAD = 2
"""Shards in flight for each that the cluster can work on: one at work, one waiting, so that no worker idles."""

LOSSES = 4
"""How often in a row a worker may be lost without finishing a cell before the cell that it was at is given up."""

_LOOK_S = 10.0


@dataclass(eq=False)
class Flight:
    """A shard on its way.

    Attributes:
        cells: of the shard, as planned.
        left: those still to be done, by key.
        at: key of the one worked on; None before the first.
        losses: workers lost since the last finished cell.
    """

    cells: Sequence[PlannedCell]
    left: dict[str, PlannedCell]
    at: str | None = None
    losses: int = 0


class RayRunner:
    """Works off a plan on a Ray cluster, as ``exitbench.runner.runner.Runner`` does on this machine.

    Args:
        ray: connected.
        job: what workers are told.
        store: where cells go; only the driver writes there.
        resources: of each shard.
        slices: of each shard.
        tell: told, in a line, what the user should know on the way.
    """

    def __init__(
        self, ray: ModuleType, job: Job, store: Store, resources: Resources, slices: int, tell: Callable[[str], None]
    ) -> None:
        self.ray, self.job, self.store, self.resources, self.slices, self.tell = ray, job, store, resources, slices, tell
        self.most_in_flight = 0
        self._flights: dict[Any, Flight] = {}
        self._limit, self._looked = 0, -_LOOK_S

    def run(self, plan: Plan, on_start: Callable[[PlannedCell], None], on_outcome: Callable[[Outcome], None]) -> None:
        """Run every missing cell, telling when one starts and what became of it, in the order in which that happens.

        Every finished cell is stored as it arrives. When a worker is lost, another goes on with what is left of its shard.

        Raises:
            UserError: a machine has other code, weights or data than this one, or cannot be used; what was finished is kept.
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
        """The plan's shards, made as they are asked for."""
        for cells in shards(plan.cells, self.slices):
            yield Flight(cells, {cell.key: cell for cell in cells if not cell.done})

    def _allowed(self) -> int:
        """How many shards may be in flight; the cluster may grow and shrink."""
        if time.monotonic() - self._looked >= _LOOK_S:
            at_once = slots(self.ray, self.resources)
            if not at_once and not self._limit:
                wants = f"{self.resources.cpus:g} CPUs and {self.resources.gpus:g} GPUs"
                self.tell(f"no machine of the cluster has {wants}; waiting for one (Ctrl-C ends it)")
            self._limit, self._looked = max(AHEAD, AHEAD * at_once), time.monotonic()
        return self._limit

    def _launch(self, flight: Flight) -> None:
        flight.at = None
        # Slice by slice after a loss, so that it shows at which it happens.
        stack = 1 if flight.losses else self.slices
        shard = shard_of(flight.cells, flight.left, self.store, stack)
        self._flights[self._task.remote(self._job, shard)] = flight
        self.most_in_flight = max(self.most_in_flight, len(self._flights))

    def _next(self, answers: Any) -> Flight | None:
        """Take a flight's next answer; the flight itself where its worker was lost and something is left to do."""
        errors = self.ray.exceptions
        flight = self._flights[answers]
        try:
            self._take(flight, self.ray.get(next(answers)))
        except StopIteration:
            del self._flights[answers]
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, UserError) else None
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
        """Go on with what is left of a flight; what loses its worker every time is an error like any other."""
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
        """Take what has arrived and end the rest."""
        for answers in self._flights:
            self.ray.cancel(answers, force=True)
        for answers, flight in self._flights.items():
            try:
                while self.ray.wait([answers], timeout=0, fetch_local=False)[0]:
                    self._take(flight, self.ray.get(next(answers), timeout=_LOOK_S))
            except (StopIteration, OSError, self.ray.exceptions.RayError):
                continue
        self._flights.clear()

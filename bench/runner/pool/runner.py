"""Executes a plan in several processes of this machine, this one among them; it alone writes to the store."""

from __future__ import annotations

import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from exitbench.models.error_text import first_line
from exitbench.runner.answers import CellStarted, Failed, Finished
from exitbench.runner.batching import GATHERED
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.plan import Plan, PlannedCell
from exitbench.runner.pool.child import LOST, Child
from exitbench.runner.pool.job import PoolJob, with_images
from exitbench.runner.pool.tasks import Selection, Task, selections, tasks
from exitbench.runner.pool.worker import Logged, Raised, TaskDone
from exitbench.runner.runner import Runner, Started
from exitbench.store.store import Store

_log = logging.getLogger(__name__)


class PoolRunner:
    """A runner that executes a plan in several processes, as ``exitbench.runner.runner.Runner`` does in one.

    This process takes tasks like the others. What a lost process had not finished, another one goes on with.

    Args:
        job: What is evaluated.
        store: The store of cells.
        processes: Number of processes, at least 1; this one is one of them.
        tell: Called with messages of one line for the user.
    """

    def __init__(self, job: PoolJob, store: Store, processes: int, tell: Callable[[str], None]) -> None:
        self.job, self.store, self.processes, self.tell = job, store, processes, tell
        self._own = Runner(job.target, job.threat_model, job.seed, job.dataset, store, gathered=GATHERED)
        self._changed = threading.Condition()
        self._left: deque[Task] = deque()
        self._busy, self._ending = 0, False
        self._ended: set[str] = set()
        self._running: dict[str, PlannedCell] = {}
        self._error: BaseException | None = None
        self._steps: list[Started | Outcome] = []
        self._report: Callable[[Started | Outcome], None] = self._steps.append
        self._children: list[Child] = []
        self._threads: list[threading.Thread] = []

    @contextmanager
    def begun(self, plan: Plan) -> Iterator[None]:
        """Have the other processes start on the plan; what they finish is stored, and reported once ``run`` is called."""
        self._left.extend(tasks(plan.cells))
        self._ended = {cell.key for cell in plan.cells if cell.done}
        try:
            self._start(pickle.dumps(self.job))
            yield
        finally:
            self._end()

    def run(self, plan: Plan, on_start: Callable[[PlannedCell], None], on_outcome: Callable[[Outcome], None]) -> None:
        """Run every missing cell, and report starts and outcomes as they happen, from several threads, one at a time.

        Raises:
            ChangedOutputs, OSError: See ``Runner.run``; finished cells are kept.
        """

        def report(step: Started | Outcome) -> None:
            if isinstance(step, Outcome):
                on_outcome(step)
            else:
                on_start(step.cell)

        try:
            with self._changed:
                for step in self._steps:
                    report(step)
                self._report = report
            waiting = selections(plan.cells)
            while self._goes_on():
                if (task := self._task()) is not None:
                    self._compute(task.cells)
                waiting = self._select(waiting)
            self._select(waiting)
        except BaseException:
            self._end()
            raise

    def _goes_on(self) -> bool:
        """Return whether there is work left, and wait where only others have some.

        Raises:
            BaseException: What another thread raised.
        """
        with self._changed:
            while self._error is None and not self._left and self._busy:
                self._changed.wait(timeout=1.0)  # with an end, so that an interrupt is noticed on every system
                if not self._left:
                    return True
            if self._error is not None:
                raise self._error
            return bool(self._left)

    def _compute(self, cells: Iterable[PlannedCell]) -> None:
        for step in self._own.steps(Plan(tuple(cells), ())):
            self._take_down(step)

    def _select(self, waiting: list[Selection]) -> list[Selection]:
        """Make the selections whose parts have ended, from their stored logits, and return the others."""
        left = []
        for selection in waiting:
            if all(part.key in self._ended for part in selection.parts):
                self._compute([*(replace(part, done=True) for part in selection.parts), selection.cell])
            else:
                left.append(selection)
        return left

    def _take_down(self, step: Started | Outcome) -> None:
        with self._changed:
            self._report(step)
            if isinstance(step, Started):
                self._running[step.cell.key] = step.cell
                return
            self._ended.add(step.cell.key)
            self._running.pop(step.cell.key, None)
            if self._running:  # what a display names is a cell that is still computed
                self._report(Started(next(iter(self._running.values()))))
            self._changed.notify_all()

    def _start(self, job: bytes) -> None:
        for _ in range(min(self.processes - 1, len(self._left))):
            try:
                child = Child(job)
            except OSError as error:
                self.tell(f"no further process could be started ({first_line(error)}); {len(self._children) + 1} are used")
                return
            self._children.append(child)
            thread = threading.Thread(target=self._follow, args=(child,), daemon=True)
            self._threads.append(thread)
            self._busy += 1
            thread.start()

    def _end(self) -> None:
        """End the other processes; what they have sent is stored."""
        with self._changed:
            self._left.clear()
            self._ending = True
        for child in self._children:
            child.end()
        for thread in self._threads:
            thread.join()

    def _follow(self, child: Child) -> None:
        """Send a process task after task and take down what it answers, in a thread of its own."""
        left: dict[str, PlannedCell] = {}
        try:
            while (task := self._task()) is not None:
                left = {cell.key: cell for cell in task.cells}
                child.send(with_images(task.cells))
                while not isinstance(answer := child.receive(), TaskDone):
                    self._hear(answer, left)
        except LOST:
            self._lost(child, left)
        except BaseException as error:  # noqa: BLE001 - raised by the thread that runs the plan
            with self._changed:
                self._error = self._error or error
        finally:
            child.end()
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _task(self) -> Task | None:
        with self._changed:
            return self._left.popleft() if self._left and self._error is None else None

    def _hear(self, answer: object, left: dict[str, PlannedCell]) -> None:
        if isinstance(answer, Raised):
            raise answer.error
        if isinstance(answer, Logged):
            logger = logging.getLogger(answer.record.name)
            if logger.isEnabledFor(answer.record.levelno):
                logger.handle(answer.record)
        elif isinstance(answer, CellStarted):
            self._take_down(Started(left[answer.key]))
        elif isinstance(answer, Finished):
            self.store.write_bytes(answer.key, answer.raw)
            self._take_down(Outcome(left.pop(answer.key), None))
        elif isinstance(answer, Failed):
            self.store.write_error(answer.key, answer.what)
            self._take_down(Outcome(left.pop(answer.key), answer.what.error))

    def _lost(self, child: Child, left: dict[str, PlannedCell]) -> None:
        """Leave what a process had not finished to the others."""
        if self._ending:
            return
        how = child.how_it_ended()
        _log.warning("a process of attacks was lost (%s), %d cells left", how, len(left))
        self.tell(f"a process of attacks was lost ({how}); its {len(left)} cells go on in another")
        with self._changed:
            for key in left:
                self._running.pop(key, None)
            self._left.appendleft(Task(tuple(left.values())))

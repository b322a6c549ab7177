"""Times an evaluation, from its request to its reports, stage by stage."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from exitbench.api.display import NoDisplay
from exitbench.api.execution import execute_plan, plan_evaluation
from exitbench.report.write import rewrite_reports
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.plan import Plan, PlannedCell
from exitbench.runner.prepare import Prepared, Request
from exitbench.store.store import Store


def stages(request: Request, attacks: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Run an evaluation into a folder that is then deleted, and return the seconds of its stages.

    They are of processor time on a CPU, so that other programs do not lengthen them, and of wall-clock time on a GPU.

    Returns:
        ``n``, ``attacks``; ``seconds``: those of each stage, by name, in order; ``total``: their sum; ``work``: the sum without
        loading; ``failed``: names of attacks that failed.

    Raises:
        UserError: If the request cannot be fulfilled.
    """
    on_gpu = request.device != "cpu" and torch.cuda.is_available()
    clock = Stopwatch(on_gpu)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        prepared, plan = plan_evaluation(request, attacks, seed, store, clock)
        execute_plan(prepared, plan, seed, store, clock)
        clock.lap("finishing the cells")
        rewrite_reports(store, Path(folder))
        clock.lap("reports")
    total = sum(clock.seconds.values())
    return {
        "n": prepared.n,
        "attacks": list(attacks),
        "seconds": clock.seconds,
        "total": total,
        "work": total - clock.seconds["loading"],
        "failed": sorted(clock.failed),
    }


class Stopwatch(NoDisplay):
    """A display that shows nothing and takes the time between its calls.

    Args:
        on_gpu: Whether to wait for a GPU and take wall-clock time; else it is processor time.

    Attributes:
        seconds: Seconds of each stage so far, by name, in the order in which they began.
        failed: Names of attacks that failed.
    """

    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self._last = self._now()
        self._at = "before the attacks"

    def lap(self, stage: str) -> None:
        """Charge the time since the last call to ``stage``."""
        now = self._now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if not self.on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def prepared(self, prepared: Prepared) -> None:
        self.lap("loading")

    def planned(self, plan: Plan) -> None:
        self.lap("planning")

    def choosing(self) -> AbstractContextManager[Any]:
        return self._timed("choice of the search model")

    def checking(self) -> AbstractContextManager[Any]:
        return self._timed("trust checks")

    def started(self, cell: PlannedCell) -> None:
        self.lap(self._at)
        self._at = cell.name

    def finished(self, outcome: Outcome) -> None:
        self.lap(self._at)  # on a GPU, a cell is reported when the work on others has begun
        if outcome.error:
            self.failed.add(outcome.cell.name)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        self.lap("planning")
        yield
        self.lap(stage)

"""Plans and executes evaluations, for both ``bench run`` and ``exitbench.evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from exitbench.api.display import Display
from exitbench.checks.probe import ensure_probe
from exitbench.errors import UserError, as_user_errors
from exitbench.runner.batching import GATHERED, cells_ahead, stack_size
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.plan import Plan, PlannedCell, make_plan
from exitbench.runner.prepare import Prepared, Request, prepare
from exitbench.runner.record import write_record
from exitbench.runner.runner import Runner
from exitbench.runner.search_backend import with_search_model
from exitbench.runner.settle import settled
from exitbench.runner.threads import torch_threads
from exitbench.store.heartbeat import RunMonitor
from exitbench.store.run_record import RunRecord, run_name
from exitbench.store.store import Store
from exitbench.target.networks import Network


class PlanRunner(Protocol):
    """A runner of the missing cells of a plan: in this process (``exitbench.runner.runner``), in several, or on a cluster."""

    def run(self, plan: Plan, on_start: Callable[[PlannedCell], None], on_outcome: Callable[[Outcome], None]) -> None:
        """Run every missing cell; the functions are called when one starts and when it ends."""


class BegunRunner(PlanRunner, Protocol):
    """A runner that works in other processes while this one does something else."""

    def begun(self, plan: Plan) -> AbstractContextManager[None]:
        """Have others begin on the missing cells; on leaving, they are ended."""


@dataclass(frozen=True)
class Engine:
    """Where cells are computed besides this process.

    Attributes:
        build: Returns the runner of a prepared evaluation.
        threads: Torch's threads in this process meanwhile; None for as many as it has.
    """

    build: Callable[[Prepared], BegunRunner]
    threads: int | None = None


@dataclass(frozen=True)
class Execution:
    """The outcome of the execution of a plan.

    Attributes:
        record: The run record, which is in the store.
        failed: Whether some cell, or the trust checks, ended in an error.
        interrupted: Whether it was interrupted; finished cells are in the store.
    """

    record: RunRecord
    failed: bool = False
    interrupted: bool = False


def plan_evaluation(
    request: Request, attacks: Sequence[str], seed: int, store: Store, display: Display, network: Network | None = None
) -> tuple[Prepared, Plan]:
    """Load and check what is requested, resolve the attacks, and find out which cells are missing.

    Args:
        request: The request, without attacks and seed.
        attacks: Names of attacks.
        seed: Seed of the attacks' noise.
        store: The store in which finished cells are looked up.
        display: The display of the plan.
        network: The network itself, if ``request.model`` does not name one.

    Raises:
        UserError: If the request cannot be fulfilled; the message says what to do.
    """
    if not attacks:
        raise UserError("name at least one attack, such as --attack all; see `exitbench list attacks`")
    prepared = settled(prepare(request, network), store)
    display.prepared(prepared)
    with as_user_errors():
        plan = make_plan(prepared.target, prepared.samples, prepared.settings, attacks, seed=seed, store=store)
    display.planned(plan)
    return prepared, plan


def execute_plan(
    prepared: Prepared, plan: Plan, seed: int, store: Store, display: Display, engine: Engine | None = None
) -> Execution:
    """Record the evaluation, run its trust checks, and run its missing cells.

    An interrupt is not raised: finished cells are kept, and the result has ``interrupted`` set.

    Args:
        prepared: The resolved request.
        plan: Its plan.
        seed: Seed of the attacks' noise.
        store: The store of cells.
        display: The display of progress.
        engine: Where the cells are run; None for this process alone.

    Raises:
        OSError: If the store cannot be written; finished cells are kept.
    """
    with torch_threads(None if engine is None else engine.threads):
        return _execute(prepared, plan, seed, store, display, engine)


def _execute(prepared: Prepared, plan: Plan, seed: int, store: Store, display: Display, engine: Engine | None) -> Execution:
    record = write_record(prepared, plan, seed, store)
    if plan.missing:
        # Compiling pays for one long process, not in each of many.
        work = sum(cell.work for cell in plan.missing) if engine is None else 0.0
        with display.choosing():
            prepared, searched_on = with_search_model(prepared, work)
        display.searching_on(searched_on.text())
    runner = engine.build(prepared) if engine is not None and plan.missing else None
    with nullcontext() if runner is None else runner.begun(plan):
        with display.checking():
            error = ensure_probe(prepared, seed, store)
        if error:
            display.check_failed(error)
        if not plan.missing:
            return Execution(record, failed=error is not None)
        found = _run(runner or local_runner(prepared, seed, store), plan, record, store, display)
    return replace(found, failed=found.failed or error is not None)


def local_runner(prepared: Prepared, seed: int, store: Store) -> Runner:
    """Return the runner for this process, with as many slices per batch as fit on the device."""
    target, split = prepared.target, prepared.split
    device = next(target.model.parameters()).device
    stack = stack_size(target.search_model, split.shape, device)
    ahead = cells_ahead(stack, device)
    return Runner(target, prepared.settings.region, seed, split.dataset, store, stack, GATHERED, ahead)


def _run(runner: PlanRunner, plan: Plan, record: RunRecord, store: Store, display: Display) -> Execution:
    outcomes: list[Outcome] = []
    missing, work = len(plan.missing), sum(cell.work for cell in plan.missing)
    with RunMonitor(store.root, run_name(record), missing, work) as monitor, display.running(work):

        def on_start(cell: PlannedCell) -> None:
            monitor.working_on(cell.text)
            display.started(cell)

        def on_outcome(outcome: Outcome) -> None:
            outcomes.append(outcome)
            monitor.done(outcome.cell.text, outcome.cell.work, outcome.error)
            display.finished(outcome)

        try:
            runner.run(plan, on_start, on_outcome)
        except KeyboardInterrupt:
            display.interrupted(len(outcomes), missing)
            return Execution(record, interrupted=True)
    return Execution(record, failed=any(outcome.error for outcome in outcomes))

"""What `bench run` and `bench check` share: the options that name an evaluation, its plan, and its work with progress shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exitbench.cli.options import data_option, number, results_option

if TYPE_CHECKING:
    from rich.console import Console

    from exitbench.cli.engine import Engine
    from exitbench.runner.plan import Plan, PlannedCell
    from exitbench.runner.prepare import Prepared, Request
    from exitbench.runner.runner import Outcome
    from exitbench.store.store import Store

FINISHED, SOME_FAILED, INTERRUPTED = 0, 1, 130

_OPTIONS = (
    click.option(
        "--model",
        required=True,
        help="See `bench list models`; published: robustbench:NAME, pyautoattack:resnet18; one of your own: "
        "path/to/file.py:factory, package.module:factory.",
    ),
    click.option("--attack", "attacks", multiple=True, help="See `bench list attacks`; several, or separated by commas."),
    click.option("--dataset", default="auto", show_default=True, help="auto: the model's own if it can be had, else digits."),
    click.option("--training", help="Which of the model's weights."),
    click.option(
        "--weights",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A safetensors file or PyTorch state dict instead of registered weights, or for a model of your own.",
    ),
    click.option(
        "--policy", help="entropy:T1,T2,...  confidence:T1,...  exit:k  entropy@equal  entropy@mmacs=60 [the weights' own]"
    ),
    click.option("--n", type=int, help="Samples, the first n of the test split [64 on a CPU, 1000 on a GPU]."),
    click.option("--norm", type=click.Choice(["Linf", "L2"]), default="Linf", show_default=True),
    click.option("--eps", callback=number, help="Radius, as 0.3 or 8/255 [the dataset's]."),
    click.option("--method", type=click.Choice(["pgd", "fgsm", "apgd", "wrm"]), default="pgd", show_default=True),
    click.option("--loss", type=click.Choice(["ce", "margin", "dlr", "dlr-targeted"]), default="ce", show_default=True),
    click.option("--steps", type=click.IntRange(min=1), help="Of PGD, APGD [100] and WRM [the dataset's]."),
    click.option("--step-size", callback=number, help="Of PGD [the dataset's]."),
    click.option("--restarts", type=click.IntRange(min=1), default=1, show_default=True),
    click.option("--keep", type=click.Choice(["best", "last"]), default="best", show_default=True, help="last: as in the paper."),
    click.option("--gamma", callback=number, default="0.3", show_default=True, help="Price of distance, of WRM."),
    click.option(
        "--budget", type=click.IntRange(min=1), default=250, show_default=True, help="Of policy: gradients per image at most."
    ),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="Of the search: auto: the model that is quickest here, measured; fp32: the plain model. That one decides, always.",
    ),
    data_option,
    results_option,
)


def evaluation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command with everything that names an evaluation; all but attacks, seed and results make a ``Request``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def plan_evaluation(console: Console, request: Request, names: Sequence[str], seed: int, store: Store) -> tuple[Prepared, Plan]:
    """Load and check what is asked for, resolve the attacks and show the plan.

    Raises:
        UserError: for anything that the user can mend.
    """
    from exitbench.errors import UserError
    from exitbench.models.registry import UnknownName
    from exitbench.runner.plan import make_plan
    from exitbench.runner.prepare import prepare

    if not names:
        raise UserError("name at least one attack, such as --attack all; see `bench list attacks`")
    prepared = prepare(request)
    if prepared.note:
        console.print(prepared.note, style="yellow", markup=False, highlight=False)
    target = prepared.target
    try:
        plan = make_plan(
            names,
            prepared.split,
            prepared.n,
            target.model.n_exits,
            prepared.settings,
            target.policy,
            target.costs.mmacs,
            target.weights,
            seed,
            store,
        )
    except (UnknownName, ValueError) as error:
        raise UserError(str(error)) from error
    _show_plan(console, plan)
    return prepared, plan


def execute_plan(
    console: Console, prepared: Prepared, plan: Plan, seed: int, store: Store, engine: Engine | None = None
) -> tuple[Mapping[str, Any], int]:
    """Record the evaluation, run its trust checks and its missing cells; the record, and how it went as an exit code.

    Args:
        engine: makes what works the cells off; None for this process itself.
    """
    from exitbench.models.spec import digest
    from exitbench.runner.record import write_record

    record = write_record(prepared, plan, seed, store)
    if plan.missing:
        from exitbench.runner.search_backend import with_search_model

        # Compiling pays for one long process, not in each of many.
        work = sum(cell.work for cell in plan.missing) if engine is None else 0.0
        prepared, searched_on = with_search_model(prepared, work)
        console.print(searched_on.text(), markup=False, highlight=False, soft_wrap=True)
    _check(console, prepared, seed, store)
    return record, _work(console, prepared, plan, seed, store, digest(record), engine) if plan.missing else FINISHED


def unwritable(results: Path, error: OSError) -> str:
    """What to say when the results folder fails in the middle of the work."""
    return (
        f"{results} could not be written ({error.strerror or error}); finished cells are kept, "
        "the same command goes on from there"
    )


def _show_plan(console: Console, plan: Plan) -> None:
    done = len(plan.cells) - len(plan.missing)
    left = "nothing left to do" if not plan.missing else f"{len(plan.missing)} to run"
    console.print(f"plan: {len(plan.cells)} cells, {done} done before, {left}", highlight=False)
    states = plan.states()
    if plan.missing:
        console.print(
            "  done/all: " + ", ".join(f"{name} {done}/{total}" for name, (done, total) in states.items()),
            markup=False,
            highlight=False,
        )
    for skipped in plan.skipped:
        console.print(f"  skipped {skipped.name}: {skipped.reason}", markup=False, highlight=False)


def _check(console: Console, prepared: Prepared, seed: int, store: Store) -> None:
    """Run the trust checks unless they are stored; what they say is in the summary, what stops them is said at once."""
    from exitbench.checks.probe import ensure_probe

    with console.status("trust checks"):
        error = ensure_probe(prepared, seed, store)
    if error:
        console.print(f"trust checks failed: {error}", style="red", markup=False)


def _work(console: Console, prepared: Prepared, plan: Plan, seed: int, store: Store, run: str, engine: Engine | None) -> int:
    """Run what is missing under a progress display; the exit code says how it went."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from exitbench.runner.batching import GATHERED, stack_size
    from exitbench.runner.runner import Runner
    from exitbench.store.heartbeat import RunMonitor

    if engine is None:
        target, split = prepared.target, prepared.split
        stack = stack_size(target.search_model, split.shape, next(target.model.parameters()).device)
        run_plan = Runner(target, prepared.settings.region, seed, split.dataset, store, stack, GATHERED).run
    else:
        run_plan = engine(prepared).run
    failed: list[Outcome] = []
    finished = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    work = sum(cell.work for cell in plan.missing)
    with RunMonitor(store.root, run, len(plan.missing), work) as live, Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=work)

        def on_start(cell: PlannedCell) -> None:
            live.working_on(_told(cell))
            progress.update(task, description=_told(cell))

        def on_outcome(outcome: Outcome) -> None:
            nonlocal finished
            finished += 1
            progress.advance(task, outcome.cell.work)
            live.done(_told(outcome.cell), outcome.cell.work, outcome.error)
            if outcome.error:
                failed.append(outcome)
                progress.console.print(f"{outcome.cell.name} failed: {outcome.error}", style="red", markup=False)

        try:
            run_plan(plan, on_start, on_outcome)
        except KeyboardInterrupt:
            progress.stop()
            console.print(
                f"interrupted: {finished} of {len(plan.missing)} cells finished and kept; the same command goes on from there"
            )
            return INTERRUPTED
    return SOME_FAILED if failed else FINISHED


def _told(cell: PlannedCell) -> str:
    """A cell in words."""
    return f"{cell.name} on {cell.slice.start}-{cell.slice.stop - 1}"

"""``bench run``: evaluate one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import data_option, number, results_option, separated

if TYPE_CHECKING:
    from rich.console import Console

    from bench.harness.plan import Plan, PlannedCell
    from bench.harness.prepare import Prepared
    from bench.harness.run import Outcome, Runner
    from bench.harness.store import Store

FINISHED, SOME_FAILED, INTERRUPTED = 0, 1, 130


@click.command("run")
@click.option("--model", required=True, help="See `bench list models`.")
@click.option(
    "--attack", "attacks", required=True, multiple=True, help="See `bench list attacks`; several, or separated by commas."
)
@click.option("--dataset", default="auto", show_default=True, help="auto: the model's own if it can be had, else digits.")
@click.option("--training", help="Which of the model's weights.")
@click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="A safetensors file instead of registered weights."
)
@click.option("--policy", help="entropy:T1,T2,...  confidence:T1,...  exit:k  entropy@equal  entropy@mmacs=60 [the weights' own]")
@click.option("--n", type=int, help="Samples, the first n of the test split [64 on a CPU, 1000 on a GPU].")
@click.option("--norm", type=click.Choice(["Linf", "L2"]), default="Linf", show_default=True)
@click.option("--eps", callback=number, help="Radius, as 0.3 or 8/255 [the dataset's].")
@click.option("--method", type=click.Choice(["pgd", "fgsm", "apgd", "wrm"]), default="pgd", show_default=True)
@click.option("--loss", type=click.Choice(["ce", "margin", "dlr", "dlr-targeted"]), default="ce", show_default=True)
@click.option("--steps", type=click.IntRange(min=1), help="Of PGD, APGD [100] and WRM [the dataset's].")
@click.option("--step-size", callback=number, help="Of PGD [the dataset's].")
@click.option("--restarts", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--keep", type=click.Choice(["best", "last"]), default="best", show_default=True, help="last: as in the paper.")
@click.option("--gamma", callback=number, default="0.3", show_default=True, help="Price of distance, of WRM.")
@click.option(
    "--budget", type=click.IntRange(min=1), default=250, show_default=True, help="Of policy: gradients per image at most."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@data_option
@results_option
def command(attacks: tuple[str, ...], seed: int, dry_run: bool, results: Path, **asked: Any) -> None:
    """Attack a model and report what is left of it under its deployed exit rule.

    Finished work is kept in the results folder: the same command again goes on where it was stopped, and
    does nothing when all is done.
    """
    from rich.console import Console

    from bench.errors import UserError
    from bench.harness.plan import make_plan
    from bench.harness.prepare import Request, prepare
    from bench.harness.run import Runner
    from bench.harness.store import Store
    from bench.record import write_record
    from models.registry import UnknownName

    names = [name for text in attacks for name in separated(text)]
    if not names:
        raise UserError("name at least one attack, such as --attack all; see `bench list attacks`")
    console = Console(stderr=True)
    store = Store(results / "store")
    prepared = prepare(Request(**asked))
    if prepared.note:
        console.print(prepared.note, style="yellow", markup=False, highlight=False)
    victim, settings = prepared.victim, prepared.settings
    try:
        plan = make_plan(
            names,
            prepared.split,
            prepared.n,
            victim.model.n_exits,
            settings,
            victim.policy,
            victim.costs.mmacs,
            victim.weights,
            seed,
            store,
        )
    except (UnknownName, ValueError) as error:
        raise UserError(str(error)) from error
    _show_plan(console, plan)
    if dry_run:
        return
    code = FINISHED
    try:
        record = write_record(prepared, plan, seed, store, asked["policy"])
        _check(console, prepared, seed, store)
        if plan.missing:
            code = _work(console, plan, Runner(victim, settings.region, seed, prepared.split.dataset, store))
        _report(results, store, record)
    except OSError as error:
        raise UserError(
            f"{results} could not be written ({error.strerror or error}); finished cells are kept, "
            "the same command goes on from there"
        ) from error
    raise SystemExit(code)


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
    from bench.trust.probe import ensure_probe

    with console.status("trust checks"):
        error = ensure_probe(prepared, seed, store)
    if error:
        console.print(f"trust checks failed: {error}", style="red", markup=False)


def _work(console: Console, plan: Plan, runner: Runner) -> int:
    """Run what is missing under a progress display; the exit code says how it went."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    failed: list[Outcome] = []
    finished = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=sum(cell.work for cell in plan.missing))

        def on_start(cell: PlannedCell) -> None:
            first, last = cell.batch.indices[0], cell.batch.indices[-1]
            progress.update(task, description=f"{cell.name} on {first}-{last}")

        def on_outcome(outcome: Outcome) -> None:
            nonlocal finished
            finished += 1
            progress.advance(task, outcome.cell.work)
            if outcome.error:
                failed.append(outcome)
                progress.console.print(f"{outcome.cell.name} failed: {outcome.error}", style="red", markup=False)

        try:
            runner.run(plan, on_start, on_outcome)
        except KeyboardInterrupt:
            progress.stop()
            console.print(
                f"interrupted: {finished} of {len(plan.missing)} cells finished and kept; the same command goes on from there"
            )
            return INTERRUPTED
    return SOME_FAILED if failed else FINISHED


def _report(results: Path, store: Store, record: Mapping[str, Any]) -> None:
    """Write the reports and print the summary of what was asked for."""
    from rich.console import Console

    from bench.evaluations import evaluations
    from bench.record import evaluation_key
    from bench.report.terminal import summary
    from bench.report.write import write_reports

    found = evaluations(store)
    written = write_reports(found, results)
    console = Console()
    for evaluation in found:
        if evaluation_key(evaluation.record) == evaluation_key(record):
            asked_for = [attack["name"] for attack in record["attacks"] if not attack["component"]]
            console.print(summary(evaluation, asked_for))
    files = ", ".join(str(path) for path in written)
    console.print(f"written: {files}", style="dim", markup=False, highlight=False, soft_wrap=True)

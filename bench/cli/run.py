"""``bench run``: evaluate one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exitbench.cli.engine import WHERE, before_imports, chosen_engine, engine_options
from exitbench.cli.evaluation import attack_names, evaluation_options, exit_code, unwritable

if TYPE_CHECKING:
    from exitbench.store.run_record import RunRecord
    from exitbench.store.store import Store


@click.command("run", short_help="Attack a network and report its worst-case accuracy")
@evaluation_options
@engine_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(attacks: tuple[str, ...], seed: int, dry_run: bool, results: Path, **asked: Any) -> None:
    """Attack a network and report its accuracy under its deployed exit rule.

    Prints a table, and writes leaderboards, plots and a page into the results folder. Finished work is kept there: give the same
    command again to resume.
    """
    from exitbench.api.execution import execute_plan, plan_evaluation
    from exitbench.cli.console import terminal
    from exitbench.cli.display import TerminalDisplay
    from exitbench.errors import UserError
    from exitbench.runner.prepare import Request
    from exitbench.store.store import Store

    names = attack_names(attacks)
    console = terminal(stderr=True)
    display = TerminalDisplay(console)
    where = {name: asked.pop(name) for name in WHERE}
    before_imports(where)
    request, store = Request.of(asked), Store(results / "store")
    prepared, plan = plan_evaluation(request, names, seed, store, display)
    if dry_run:
        return
    engine = chosen_engine(where, request, prepared, plan, seed, store, console) if plan.missing else None
    try:
        execution = execute_plan(prepared, plan, seed, store, display, engine)
        _report(results, store, execution.record)
    except OSError as error:
        raise UserError(unwritable(results, error)) from error
    raise click.exceptions.Exit(exit_code(execution))


def _report(results: Path, store: Store, record: RunRecord) -> None:
    """Write the reports and print the summary of what was asked for."""
    from exitbench.cli.console import terminal
    from exitbench.report.leaderboard.terminal import summary
    from exitbench.report.write import rewrite_reports
    from exitbench.store.run_record import evaluation_key

    found, written = rewrite_reports(store, results)
    console = terminal()
    for evaluation in found:
        if evaluation_key(evaluation.record) == evaluation_key(record):
            asked_for = [attack.name for attack in record.attacks if not attack.component]
            console.print(summary(evaluation, asked_for))
    files = ", ".join(str(path) for path in written)
    console.print(f"written: {files}", style="dim", markup=False, highlight=False, soft_wrap=True)

"""``bench status``: the progress of runs, running or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.cli.options import results_option
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.store.status import RunStatus

_LOG_LINES = 5


@click.command("status", short_help="Show the progress of runs: running, finished, killed")
@click.argument("run", required=False)
@results_option
def command(run: str | None, results: Path) -> None:
    """Show the runs of a results folder: running, finished, stopped or killed, and how far they are.

    RUN is the beginning of a run's name. With it, that run's attacks, their errors and the end of its log are
    shown. Nothing is changed.
    """
    from rich.table import Table

    from exitbench.cli.console import terminal
    from exitbench.errors import UserError
    from exitbench.report.plain_text import cell
    from exitbench.store.status import statuses

    store = results / "store"
    if not store.is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    found, unreadable = statuses(store)
    for why in unreadable:
        say(why, err=True)
    if run is not None:
        chosen = [status for status in found if status.run.startswith(run)]
        if len(chosen) != 1:
            there = ", ".join(status.run[:12] for status in chosen or found) or "none"
            raise UserError(f"{len(chosen)} runs begin with {run!r}; there are: {there}")
        _tell(chosen[0], store)
        return
    if not found:
        say("no runs yet")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "model", "dataset", "n", "cells", "state", "left", "last cell (UTC)"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("n", "cells", "left") else "left")
    for status in found:
        record = status.record
        model = cell(f"{record.model} ({record.training})")
        cells = f"{status.done}/{status.cells}"
        state = cell(status.state)
        table.add_row(
            status.run[:8],
            model,
            cell(record.dataset),
            str(record.n),
            cells,
            state,
            _left(status),
            (status.last or "-").replace("T", " ")[:16],
        )
    terminal().print(table)


def _left(status: RunStatus) -> str:
    if status.state != "running" or status.heartbeat is None or status.heartbeat.left_s is None:
        return "-"
    minutes, seconds = divmod(round(status.heartbeat.left_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _tell(status: RunStatus, store: Path) -> None:
    from exitbench.store.heartbeat import log_end

    record, heartbeat = status.record, status.heartbeat
    say(f"{status.run}: {status.state}, {status.done} of {status.cells} cells stored")
    say(f"{record.model} ({record.training}) on {record.dataset}, n = {record.n}, policy {record.policy}")
    if heartbeat is not None and status.state != "finished":
        say(
            f"process {heartbeat.pid}, since {heartbeat.started}, last heartbeat {heartbeat.updated}, "
            f"on {heartbeat.cell or 'nothing yet'}"
        )
        say(f"{heartbeat.finished} finished and {heartbeat.failed} failed of {heartbeat.cells}, left: {_left(status)}")
    for attack in status.attacks:
        error = f"  {attack.error}" if attack.error else ""
        say(f"  {attack.name}: {attack.done}/{attack.cells}{error}")
    if (log := log_end(store, status.run, _LOG_LINES)) is not None:
        say(f"log {log[0]}:")
        for line in log[1]:
            say(f"  {line}")

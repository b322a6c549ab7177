"""``bench perf``: the speed of the suite against hand-written loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exitbench.cli.option_types import NamedPath, Whole
from exitbench.cli.options import data_option, device_option

RUN = ("average", "max_average", "adaptive")
"""Attacks of the whole run that is timed."""


@click.command("perf", short_help="Measure the speed of the suite")
@click.option("--model", default="rdi_smallcnn", show_default=True, help="As in `run`.")
@click.option("--dataset", default="digits", show_default=True, help="As in `run`.")
@click.option("--training", help="Name of the weights, as in `list models`. [default: the first]")
@click.option("--policy", help="As in `run`.")
@click.option("--n", type=Whole(min=1), default=16, show_default=True, help="Number of images, the first of the test split.")
@click.option("--batch", type=Whole(min=1), default=32, show_default=True, help="Images in a batch when throughput is measured.")
@device_option
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True, help="As in `run`.")
@click.option(
    "--autoattack/--no-autoattack",
    default=True,
    help="Also race AutoAttack on every exit, which takes most of the time. [default: yes]",
)
@click.option("--run/--no-run", "whole", default=True, help="Also time a whole run, stage by stage. [default: yes]")
@click.option("--output", type=NamedPath(dir_okay=False), help="Write all measurements as JSON.")
@click.option("--compare", type=NamedPath(exists=True, dir_okay=False), help="Show what changed since this earlier `--output`.")
@click.option(
    "--history",
    type=NamedPath(exists=True, file_okay=False),
    help="Measure nothing; draw the earlier measurements of this folder.",
)
@data_option
def command(
    batch: int,
    autoattack: bool,
    whole: bool,
    output: Path | None,
    compare: Path | None,
    history: Path | None,
    **asked: Any,
) -> None:
    """Race the suite against PGD (torchattacks) on every exit and AutoAttack on every exit, run by hand.

    Both attack the same images in one process, the suite until its robust accuracy is as low. Times are processor time, so
    ratios hold on a busy machine. Also measured: operations launched and waits for each gradient, the share of the machine's
    top speed, and the seconds of each stage of a whole run.
    """
    if history is not None:
        _draw(history)
        return
    import json

    from exitbench.api.stages import stages
    from exitbench.cli.console import terminal
    from exitbench.cli.outputs import reason, write_output
    from exitbench.cli.progress_lines import working
    from exitbench.errors import UserError
    from exitbench.perf.compare import changes, differences, read_measurement
    from exitbench.perf.measure import measure
    from exitbench.perf.text import changes_text, perf_text
    from exitbench.runner.prepare import Request, prepare
    from exitbench.runner.search_backend import with_search_model

    before = None if compare is None else read_measurement(compare)
    console = terminal(stderr=True)
    prepared, backend = with_search_model(prepare(Request.of(asked)), work=100.0 * asked["n"])
    console.print(backend.text(), markup=False, highlight=False, soft_wrap=True)
    with working(console, "starting") as status:
        found = measure(prepared, backend, status.update, autoattack=autoattack, batch=batch)
        if whole:
            status.update("a whole run")
            found["run"] = stages(Request.of(asked), [*RUN, *["autoattack"] * autoattack])
    terminal().print(perf_text(found))
    if before is not None:
        terminal().print(changes_text(changes(before, found), differences(before, found)))
    if output is not None:
        try:
            write_output(output, (json.dumps(found, indent=1) + "\n").encode())
        except OSError as error:
            raise UserError(f"{output} cannot be written: {reason(error)}") from error


def _draw(folder: Path) -> None:
    from exitbench.cli.console import terminal
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError
    from exitbench.report.speed_history import drawn

    path = folder / "history.png"
    try:
        write_output(path, drawn(folder))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason(error)}") from error
    terminal().print(f"written: {path}", style="dim", markup=False, highlight=False, soft_wrap=True)

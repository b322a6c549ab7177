"""``bench latency``: how long each exit takes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exitbench.cli.option_types import NamedPath, Whole
from exitbench.cli.options import data_option, results_option, with_normalisation


@click.command("latency")
@click.option(
    "--model",
    required=True,
    help="See `bench list models`; one of your own: path/to/file.py:factory, package.module:factory, 'file.py:factory(n=3)'.",
)
@click.option("--dataset", default="auto", show_default=True, help="auto: the model's own if it can be had, else digits.")
@click.option("--training", help="Which of the model's weights.")
@click.option("--weights", type=NamedPath(dir_okay=False), help="A weight file instead of registered weights.")
@click.option("--policy", help="The deployed exit rule, as in `bench run` [the weights' own].")
@with_normalisation
@click.option("--n", type=Whole(), default=64, show_default=True, help="Clean test images to time it on, the first n.")
@click.option("--rounds", type=Whole(3, 10_000), default=30, show_default=True, help="How often all is timed, in turn.")
@click.option("--threads", type=Whole(1, 1024), help="Of the processor [as many as its library takes].")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@data_option
@results_option
def command(rounds: int, threads: int | None, results: Path, **asked: Any) -> None:
    """Time the deployed network up to each exit, nothing behind it computed, for one image and for a batch of 128.

    The figures go into the store and onto the leaderboard (column latency_ms), with the processor that they were measured on.
    All measurements in the store are written to latency.csv and plots/latency: multiply-accumulates against milliseconds, with
    ptflops as the second opinion on the former. Leave the machine alone while it runs.
    """
    import torch
    from rich.table import Table

    from exitbench.cli.console import terminal
    from exitbench.cli.progress_lines import working
    from exitbench.errors import UserError
    from exitbench.report.latency.latency import write_latency
    from exitbench.report.lock import reports_locked
    from exitbench.report.write import rewrite_reports
    from exitbench.runner.prepare import Request, prepare
    from exitbench.store.store import Store
    from exitbench.timing.latency import BATCH, latencies, measure_latency
    from exitbench.timing.latency import write_latency as keep_latency

    if threads is not None:
        torch.set_num_threads(threads)
    store = Store(results / "store")
    prepared = prepare(Request.of(asked))
    errors = terminal(stderr=True)
    if prepared.note:
        errors.print(prepared.note, style="yellow", markup=False, highlight=False)
    with working(errors, f"timing {prepared.target.name}"):
        images = prepared.split.batch(0, prepared.n).x
        latency = measure_latency(prepared.target, prepared.split.dataset, images, rounds)
    try:
        keep_latency(latency, store.root)
        with reports_locked(results):
            written = write_latency(latencies(store.root), results)
        written += rewrite_reports(store, results)[1]
    except OSError as error:
        raise UserError(f"{error.filename or results} cannot be written: {error.strerror}") from error
    table = Table(box=None, pad_edge=False)
    for heading in ("exit", "mmacs", "by ptflops", "ms, one image", f"ms of {BATCH}"):
        table.add_column(heading, justify="right")
    for k, (mmacs, second) in enumerate(zip(latency.mmacs, latency.ptflops, strict=True)):
        told = "-" if second is None else f"{second:.2f}"
        times = [f"{each[k][1]:.3g}" if latency.stops else "-" for each in (latency.one, latency.many)]
        table.add_row(str(k + 1), f"{mmacs:.2f}", told, *times)
    table.add_row("deployed", "", "", f"{latency.deployed_one[1]:.3g}", f"{latency.deployed_many[1]:.3g}")
    console = terminal()
    console.print(table)
    threads_text = "" if latency.device == "cuda" else f", {latency.threads} threads"
    console.print(f"medians of {rounds} rounds on {latency.machine}{threads_text}", markup=False, highlight=False)
    if not latency.stops:
        console.print(
            "the network neither is cut into stages nor yields its exits one by one: it runs whole for every exit, which has no "
            "latency of its own",
            markup=False,
            highlight=False,
        )
    console.print(f"written: {', '.join(map(str, written))}", style="dim", markup=False, highlight=False, soft_wrap=True)

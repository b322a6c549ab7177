"""``bench latency``: how long each exit takes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exitbench.cli.option_types import Whole
from exitbench.cli.options import data_option, device_option, results_option, with_network
from exitbench.models.number_text import cost_text


@click.command("latency", short_help="Time the network up to each exit")
@with_network
@click.option("--n", type=Whole(), default=64, show_default=True, help="Number of clean test images to time it on.")
@click.option("--rounds", type=Whole(3, 10_000), default=30, show_default=True, help="How often everything is timed, in turn.")
@click.option("--threads", type=Whole(1, 1024), help="Threads of the processor. [default: PyTorch's choice]")
@device_option
@data_option
@results_option
def command(rounds: int, threads: int | None, results: Path, **asked: Any) -> None:
    """Time the network up to each exit, with nothing computed behind it, for one image and for a batch of 128.

    The times are stored and shown on the leaderboard (column latency_ms), with the processor that they were measured on.
    All stored times are written to latency.csv, and drawn against multiply-accumulates in plots/latency. Leave the machine
    alone while this runs.
    """
    import torch
    from rich.table import Table

    from exitbench.cli.console import terminal
    from exitbench.cli.progress_lines import working
    from exitbench.errors import UserError
    from exitbench.report.charts.looks import looks_of
    from exitbench.report.latency.latency import write_latency
    from exitbench.report.lock import reports_locked
    from exitbench.report.write import write_reports
    from exitbench.runner.prepare import Request, prepare
    from exitbench.scoring.load import evaluations
    from exitbench.store.identity import Network
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
            found, timed = evaluations(store), latencies(store.root)
            looks = looks_of(found, [(Network(each.model, each.training, each.weights), each.dataset) for each in timed])
            written = [*write_latency(timed, results, looks), *write_reports(found, results)]
    except OSError as error:
        raise UserError(f"{error.filename or results} cannot be written: {error.strerror}") from error
    table = Table(box=None, pad_edge=False)
    for heading in ("exit", "mmacs", "by ptflops", "ms, one image", f"ms of {BATCH}"):
        table.add_column(heading, justify="right")
    for k, (mmacs, second) in enumerate(zip(latency.mmacs, latency.ptflops, strict=True)):
        told = "-" if second is None else cost_text(second)
        times = [f"{each[k][1]:.3g}" if latency.stops else "-" for each in (latency.one, latency.many)]
        table.add_row(str(k + 1), cost_text(mmacs), told, *times)
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

"""``bench plan``: what an evaluation would do, and what it would cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exitbench.cli.duration import duration
from exitbench.cli.evaluation import attack_names, evaluation_options
from exitbench.cli.option_types import Finite, Whole
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.runner.estimate import Row
    from exitbench.timing.throughput import Throughput


@click.command("plan", short_help="Show what a run will do and what it will cost")
@evaluation_options
@click.option("--estimate", is_flag=True, help="Also predict passes and hours.")
@click.option("--cores", type=Whole(min=1), help="With --estimate: number of CPU cores. [default: this machine's]")
@click.option("--gpus", type=Finite(min=0, min_open=True), help="With --estimate: number of GPUs like this one.")
def command(
    attacks: tuple[str, ...],
    seed: int,
    results: Path,
    estimate: bool,
    cores: int | None,
    gpus: float | None,
    **asked: Any,
) -> None:
    """Show what a run would do: what is done already, what is missing, and with --estimate how long that takes.

    The estimate takes passes per image from finished work in the results folder: of the same attack on this network, else on
    others, else what the attack usually needs. The last column says which. The time of a pass is measured on this machine.
    """
    from exitbench.api.execution import plan_evaluation
    from exitbench.cli.console import terminal
    from exitbench.cli.display import TerminalDisplay
    from exitbench.errors import UserError
    from exitbench.runner.prepare import Request
    from exitbench.store.store import Store

    if not estimate and (cores or gpus):
        raise UserError("--cores and --gpus go with --estimate")
    store = Store(results / "store")
    names = attack_names(attacks)
    prepared, plan = plan_evaluation(Request.of(asked), names, seed, store, TerminalDisplay(terminal()))
    if not estimate or not plan.missing:
        return

    from exitbench.runner.estimate import estimate as estimated
    from exitbench.runner.search_backend import with_search_model
    from exitbench.timing.throughput import measure_throughput

    target = prepared.target
    device = next(target.model.parameters()).device.type
    if gpus and device != "cuda":
        raise UserError("--gpus: how long a pass takes is measured on this machine, which has no GPU; ask on one that has")
    if cores and device != "cpu":
        raise UserError("--cores: this would run on the GPU; say --device cpu, or --gpus")
    unit, parts = ("GPU", gpus or 1.0) if device == "cuda" else ("core", cores or os.cpu_count() or 1)
    target = with_search_model(prepared, 0.0)[0].target  # nothing compiled, which takes minutes
    rows, throughput = estimated(plan, target.weights, store), measure_throughput(target.search_model, prepared.split.shape)
    _show(rows, throughput, unit, parts)


def _show(rows: Sequence[Row], throughput: Throughput, unit: str, parts: float) -> None:
    from rich.table import Table

    from exitbench.cli.console import terminal
    from exitbench.report.plain_text import cell

    table = Table(box=None, pad_edge=False)
    for heading in ("attack", "samples", "forwards", "gradients", f"{unit} time", "passes per sample are"):
        table.add_column(heading, justify="left" if heading in ("attack", "passes per sample are") else "right", overflow="fold")
    for row in rows:
        passes = (f"{row.forwards:.1f}", f"{row.backwards:.1f}")
        table.add_row(cell(row.name), str(row.samples), *passes, duration(row.seconds(throughput)), cell(row.source))
    terminal().print(table)
    seconds = sum(row.seconds(throughput) for row in rows)
    forwards = sum(row.samples * row.forwards for row in rows)
    backwards = sum(row.samples * row.backwards for row in rows)
    say(
        f"total: {forwards:.4g} forward and {backwards:.4g} backward passes, {duration(seconds)} on one {unit} "
        f"({throughput.forward_s * 1e3:.3g} ms a forward, {throughput.gradient_s * 1e3:.3g} ms a gradient, measured here), "
        f"{duration(seconds / parts)} on {parts:g} {unit}{'s' if parts != 1 else ''}"
    )

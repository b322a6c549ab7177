"""``exitbench figures``: figures for papers, a single panel each."""

from __future__ import annotations

from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import results_option, rule_option
from exitbench.cli.say import say

SHARES = ("worst", "clean", "certified", "slowdown")
COSTS = ("mmacs", "slowed", "certified_mmacs", "ms", "parameters")


@click.command("figures", short_help="Draw single figures for papers")
@click.option("--output", required=True, type=NamedPath(file_okay=False), help="Folder to write into.")
@click.option("--share", "shares", multiple=True, type=click.Choice(SHARES), help="Accuracy to draw; several [worst and clean].")
@click.option("--cost", type=click.Choice(COSTS), default="mmacs", show_default=True, help="What to draw it against.")
@click.option("--log", is_flag=True, help="A logarithmic axis of cost.")
@results_option
@rule_option
def command(results: Path, output: Path, shares: tuple[str, ...], cost: str, log: bool) -> None:
    """Write figures for papers, as PDF and SVG: a panel for each board and accuracy, 3.3 in wide, in letters of 8 pt.

    Networks look as on the page. Curves of `exitbench sweep` are drawn where cost is the mean cost on clean images.
    """
    from exitbench.errors import UserError
    from exitbench.report.charts.paper import write_paper_figures
    from exitbench.report.page.curves import read_curves
    from exitbench.report.write import boards
    from exitbench.scoring.load import evaluations
    from exitbench.store.store import Store

    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    found, curves = boards(evaluations(Store(results / "store"))), read_curves(results / "sweeps")
    try:
        written = write_paper_figures(found, curves, output, shares or ("worst", "clean"), cost, log=log)
    except OSError as error:
        raise UserError(f"{error.filename or output} cannot be written: {error.strerror}") from error
    for path in written:
        say(path)

"""``exitbench figures``: figures of a single panel, for papers and screens."""

from __future__ import annotations

from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import results_option, rule_option
from exitbench.cli.say import say

SHARES = ("worst", "clean", "certified", "slowdown", "range")
COSTS = ("mmacs", "slowed", "certified_mmacs", "ms", "parameters")


@click.command("figures", short_help="Draw single figures for papers and web pages")
@click.option("--output", required=True, type=NamedPath(file_okay=False), help="Folder to write into.")
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=click.Choice(SHARES),
    help="Accuracy to draw; may be repeated. [default: worst and clean]",
)
@click.option("--cost", type=click.Choice(COSTS), default="mmacs", show_default=True, help="What to draw it against.")
@click.option("--log", is_flag=True, help="A logarithmic axis of cost.")
@click.option("--screen", is_flag=True, help="PNG for a README or a web page, 700 pixels wide, with a title.")
@results_option
@rule_option
def command(results: Path, output: Path, shares: tuple[str, ...], cost: str, log: bool, screen: bool) -> None:
    """Write figures for papers, as PDF and SVG: a panel for each board and accuracy, 3.3 in wide, in 8 pt type.

    `--share range` draws clean, worst-case and certified accuracy in one panel. Networks look as on the page. Curves of
    `exitbench sweep` are drawn where cost is the mean cost on clean images.
    """
    from exitbench.errors import UserError
    from exitbench.report.charts.single import write_single_figures
    from exitbench.report.page.curves import read_curves
    from exitbench.report.write import boards
    from exitbench.scoring.load import evaluations
    from exitbench.store.store import Store

    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    found, curves = boards(evaluations(Store(results / "store"))), read_curves(results / "sweeps")
    try:
        written = write_single_figures(found, curves, output, shares or ("worst", "clean"), cost, log=log, screen=screen)
    except OSError as error:
        raise UserError(f"{error.filename or output} cannot be written: {error.strerror}") from error
    for path in written:
        say(path)

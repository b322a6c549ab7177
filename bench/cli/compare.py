"""``bench compare``: two evaluations side by side, paired."""

from __future__ import annotations

import re
from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import results_option, rule_option


@click.command("compare", short_help="Compare two evaluations, image by image")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--plot", type=NamedPath(), help="Name of the plot's files, without an ending. [default: results/plots/compare-A-B]"
)
@results_option
@rule_option
def command(a: str, b: str, plot: Path | None, results: Path) -> None:
    """Compare two evaluations of the same images, B against A: a table, and a plot as PNG and SVG.

    A and B are networks of the results folder (MODEL or MODEL:TRAINING), or single runs: the file of a run's record, or
    the first digits of its id.
    """
    from exitbench.analysis.compare.find import find_pair
    from exitbench.analysis.compare.pairs import compare
    from exitbench.cli.console import terminal
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError
    from exitbench.report.charts.looks import looks_of
    from exitbench.report.charts.render import Kind
    from exitbench.report.compare.plot import draw_comparison
    from exitbench.report.compare.terminal import comparison_text
    from exitbench.scoring.load import evaluations
    from exitbench.store.store import Store

    found = compare(*find_pair(a, b, results))
    console = terminal()
    console.print(comparison_text(found))
    stored = evaluations(Store(results / "store")) if (results / "store").is_dir() else []
    figure = draw_comparison(found, looks_of(stored))
    stem = plot or results / "plots" / f"compare-{_safe(a)}-{_safe(b)}"
    kinds: tuple[Kind, ...] = ("png", "svg")
    for kind in kinds:
        path = stem.with_name(f"{stem.name}.{kind}")
        try:
            write_output(path, figure.to_bytes(kind))
        except OSError as error:
            raise UserError(f"{path} cannot be written: {reason(error)}") from error
        console.print(f"written: {path}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _safe(name: str) -> str:
    """A name as part of a file name; a file's is that of the file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(name).stem if name.endswith(".json") else name)

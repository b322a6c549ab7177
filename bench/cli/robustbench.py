"""``bench robustbench``: RobustBench's leaderboard with a cost axis, and our networks on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import results_option

if TYPE_CHECKING:
    from exitbench.attacks.regions import Norm


@click.command("robustbench", short_help="Draw RobustBench's leaderboard against cost")
@click.option(
    "--published",
    required=True,
    type=NamedPath(dir_okay=False),
    help="CSV with RobustBench's numbers: model_id, clean_acc, autoattack_acc, and more (docs/robustbench.md).",
)
@click.option("--norm", type=click.Choice(["Linf", "L2"]), default="Linf", show_default=True, help="Leaderboard of this norm.")
@results_option
def command(published: Path, norm: Norm, results: Path) -> None:
    """Count the cost of the networks on RobustBench's CIFAR-10 leaderboard, and draw robust accuracy against it.

    Architectures are built without weights: nothing is downloaded. Published accuracies come from your file, measured ones
    from your results. They never share a column.
    """
    from exitbench.analysis.robustbench.join import count_entries, join
    from exitbench.analysis.robustbench.published import read_published
    from exitbench.cli.console import terminal
    from exitbench.cli.progress_lines import working
    from exitbench.errors import UserError
    from exitbench.models.zoo.robustbench_entry import entry_names
    from exitbench.report.charts.looks import looks_of
    from exitbench.report.robustbench.terminal import cost_axis_text
    from exitbench.report.robustbench.write import write_cost_axis
    from exitbench.scoring.load import evaluations
    from exitbench.store.store import Store

    entries = read_published(published)
    with working(terminal(stderr=True), "counting") as status:
        counts = count_entries([entry.model_id for entry in entries], norm, lambda name: status.update(f"counting {name}"))
    stored = evaluations(Store(results / "store")) if (results / "store").is_dir() else []
    axis = join(norm, entries, counts, stored, entry_names("cifar10", norm))
    try:
        written = write_cost_axis(axis, results, looks_of(stored))
    except OSError as error:
        raise UserError(f"{error.filename or results} cannot be written: {error.strerror}") from error
    console = terminal()
    console.print(cost_axis_text(axis))
    console.print(f"written: {', '.join(map(str, written))}", style="dim", markup=False, highlight=False, soft_wrap=True)

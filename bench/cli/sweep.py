"""``bench sweep``: multi-exit networks as curves of cost against accuracy, from stored logits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath, Whole
from exitbench.cli.options import data_option, number, results_option, rule_option


@click.command("sweep", short_help="Plot cost against accuracy for other thresholds")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Only these networks, separated by commas, or the option several times; your own as file.py:factory, which is "
    "executed. [default: all that are stored]",
)
@click.option("--dataset", help="Only evaluations on this dataset; your own images as in `run`.")
@click.option("--training", help="Only these weights.")
@click.option("--norm", type=click.Choice(["Linf", "L2"]), help="Only this norm.")
@click.option("--eps", callback=number, help="Only this radius, as 0.3 or 8/255.")
@click.option("--grid", type=Whole(1, 65535), help="Only evaluations with this --grid, as 255.")
@click.option("--n", type=Whole(), help="Only evaluations on this number of images. [default: the most of each network]")
@click.option(
    "--points",
    type=Whole(1, 1000),
    default=19,
    show_default=True,
    help="Number of mean costs to set thresholds for, between the first exit and the last.",
)
@click.option(
    "--weights",
    type=NamedPath(dir_okay=False),
    help="A safetensors file. [default: the registered weights with the stored digest]",
)
@data_option
@results_option
@rule_option
def command(
    models: tuple[str, ...],
    dataset: str | None,
    points: int,
    weights: Path | None,
    data: Path,
    results: Path,
    **asked: object,
) -> None:
    """Score stored results under many thresholds, and plot accuracy against cost.

    No attack is run. Only deployed rules were attacked themselves; for all others the worst case is a looser upper bound.
    Thresholds are set on held-out training images. Their logits are computed once and stored; after that neither network nor
    data are needed.
    """
    from exitbench.analysis.sweep.choose import Wanted
    from exitbench.api.names import separated
    from exitbench.api.results import curves_of, stored_in
    from exitbench.cli.console import terminal
    from exitbench.cli.progress_lines import working
    from exitbench.data.references import dataset_given
    from exitbench.errors import UserError, as_user_errors
    from exitbench.models.factory import reported_name
    from exitbench.report.charts.looks import looks_of
    from exitbench.report.lock import reports_locked
    from exitbench.report.sweep.terminal import curve_text
    from exitbench.report.sweep.write import write_sweep
    from exitbench.report.write import write_page
    from exitbench.scoring.load import evaluations

    store = stored_in(results)
    asked_for = dict.fromkeys(name for text in models for name in separated(text))
    names = tuple(map(reported_name, asked_for))
    if dataset is not None:
        with as_user_errors():
            dataset = dataset_given(dataset)
    wanted = Wanted(models=names, dataset=dataset, **asked)  # type: ignore[arg-type]
    before = store.state()
    stored = evaluations(store)
    curves = curves_of(stored, store, wanted, asked_for, points, weights, data, partial(working, terminal(stderr=True)))
    narrowed = [*names, *(str(asked[name]) for name in ("training", "n") if asked[name] is not None)]
    try:
        with reports_locked(results):
            written = write_sweep(curves, results, looks_of(stored), "".join(f"-{part}" for part in narrowed))
            newest = stored if store.state() == before else evaluations(store)  # an evaluation may have ended meanwhile
            written.append(write_page(newest, results))
    except OSError as error:
        raise UserError(f"{error.filename or results} cannot be written: {error.strerror}") from error
    console = terminal()
    for curve in curves:
        console.print(curve_text(curve))
    console.print(f"written: {', '.join(map(str, written))}", style="dim", markup=False, highlight=False, soft_wrap=True)

"""``bench publish``: put trained and evaluated weights among the shipped ones."""

from __future__ import annotations

from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import results_option
from exitbench.cli.say import say


@click.command("publish", short_help="Copy your weights to the shipped ones")
@click.option("--model", required=True, help="A name of `list models`.")
@click.option("--dataset", required=True, help="Dataset that it was trained and evaluated on.")
@click.option("--training", required=True, help="Name of the weights.")
@click.option("--to", type=NamedPath(file_okay=False), help="Folder to copy to. [default: the shipped weights, models/weights]")
@results_option
def command(model: str, dataset: str, training: str, to: Path | None, results: Path) -> None:
    """Copy weights from your folder to the shipped ones, with their measured accuracies on the card.

    Every attack of `--attack all` must have finished, and no trust check may have failed.
    """
    from exitbench.errors import UserError
    from exitbench.models.weights import SHIPPED, WeightsError, find_weights
    from exitbench.scoring.load import evaluations
    from exitbench.store.store import Store
    from exitbench.training.publish import publish

    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    try:
        card, path = find_weights(model, dataset, training)
        written = publish(card, path, evaluations(Store(results / "store")), to or SHIPPED)
    except (WeightsError, OSError) as error:
        raise UserError(str(error)) from error
    say(written)

"""``bench publish``: put trained and evaluated weights among the shipped ones."""

from __future__ import annotations

from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import results_option
from exitbench.cli.say import say


@click.command("publish")
@click.option("--model", required=True, help="See `bench list models`.")
@click.option("--dataset", required=True, help="What it was trained on and evaluated on.")
@click.option("--training", required=True, help="Which weights of it.")
@click.option("--to", type=NamedPath(file_okay=False), help="Folder [the shipped weights, models/weights].")
@results_option
def command(model: str, dataset: str, training: str, to: Path | None, results: Path) -> None:
    """Copy weights from your folder to the shipped ones, their measured accuracies on the card.

    The whole matrix of attacks must be in the results, and no trust check failed.
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

"""``bench train``: make a weight file by recipe."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import data_option


@click.command("train")
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's number.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to [your weights folder].")
@data_option
def command(recipe_name: str, seed: int, epochs: int | None, out: Path | None, data: Path) -> None:
    """Train RECIPE (see `bench list recipes`) and write its weights with a card.

    A killed run goes on from its last epoch when the same command is given again.
    """
    from dataclasses import replace

    from rich.console import Console

    from bench.errors import UserError
    from bench.training.loop import EpochRecord
    from bench.training.make_weights import make_weights
    from bench.training.recipe import named_recipe
    from models.registry import UnknownName
    from models.weights import WeightsError, user_weights

    console = Console(stderr=True)
    try:
        recipe = named_recipe(recipe_name)
    except UnknownName as error:
        raise UserError(str(error)) from error
    typed = f"python -m bench train {recipe_name} --seed {seed}" + (f" --epochs {epochs}" if epochs else "")
    if epochs:
        recipe = replace(recipe, epochs=epochs)

    def show(record: EpochRecord) -> None:
        console.print(
            f"epoch {record.epoch}/{recipe.epochs}  loss {record.loss:.3f}  "
            f"train accuracy, last exit: clean {record.clean_accuracy:.1%}, attacked {record.attacked_accuracy:.1%}"
        )

    try:
        card, path = make_weights(recipe, seed, data, out or user_weights(), typed, show)
    except (WeightsError, OSError) as error:
        raise UserError(str(error)) from error
    figures = card.details["on_calibration_split"]
    console.print(
        f"wrote {path}: on the calibration split (n = {figures['n']}), deployed, "
        f"clean {figures['clean']:.1%}, PGD-20 average {figures['pgd20_average']:.1%}"
    )

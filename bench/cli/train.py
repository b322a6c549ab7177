"""``bench train``: make a weight file by recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.cli.option_types import NamedPath, Whole
from exitbench.cli.options import data_option, device_option

if TYPE_CHECKING:
    from exitbench.training.recipe import Recipe


@click.command("train", short_help="Train a recipe and write its weights")
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--seed", type=Whole(0, 2**31), default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--epochs", type=Whole(min=1), help="Number of epochs in place of the recipe's, shared among its phases.")
@click.option(
    "--batch-size",
    type=Whole(min=1),
    help="Images per update. The learning rate is scaled with it: in proportion up to 4 times the recipe's size, with the "
    "square root beyond. [default: the recipe's, on a GPU up to 4 times that]",
)
@click.option("--out", type=NamedPath(file_okay=False), help="Folder to write to. [default: your weights folder]")
@device_option
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Precision of activations; auto takes bf16 where it is faster on this machine.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the network first: takes minutes, pays off in long runs only. [default: no-compile]",
)
@click.option(
    "--rule-only",
    is_flag=True,
    help="Train nothing: set the recipe's exit rule for the weights that are there, measure it on the CPU, and write their card.",
)
@data_option
def command(
    recipe_name: str,
    seed: int,
    epochs: int | None,
    batch_size: int | None,
    out: Path | None,
    device: str,
    precision: str,
    compiled: bool | None,
    rule_only: bool,
    data: Path,
) -> None:
    """Train RECIPE, and write the weights with a card, the log of the run and its curve.

    RECIPE is a name of `list recipes`, or a JSON file with a recipe, such as the .run.json of an earlier training. A killed
    training resumes from its last epoch when you give the same command again.
    """
    from exitbench.cli.console import terminal
    from exitbench.cli.training_progress import TrainingProgress
    from exitbench.errors import UserError
    from exitbench.models.user_folders import weights_folder
    from exitbench.models.weights import WeightsError
    from exitbench.training.deploy import deploy_again
    from exitbench.training.make_weights import make_weights

    if rule_only and (epochs or batch_size):
        raise click.UsageError("--rule-only trains nothing, so that it takes neither --epochs nor --batch-size")
    console = terminal(stderr=True)
    recipe = _recipe(recipe_name, epochs)
    typed = f"python -m bench train {recipe_name} --seed {seed}" + (f" --epochs {epochs}" if epochs else "")
    typed += f" --batch-size {batch_size}" if batch_size else ""
    try:
        if rule_only:
            card, path = deploy_again(recipe, data, out or weights_folder())
        else:
            with TrainingProgress(console, recipe) as progress:
                card, path = make_weights(
                    recipe,
                    seed,
                    data,
                    out or weights_folder(),
                    typed,
                    on_start=progress.start,
                    on_step=progress.step,
                    on_epoch=progress.epoch,
                    tell=progress.tell,
                    batch_size=batch_size,
                    device=device,
                    precision=precision,
                    compiled=compiled,
                )
    except (WeightsError, OSError) as error:
        raise UserError(str(error)) from error
    figures = card.details["on_calibration_split"]
    console.print(
        f"wrote {path}: on held-out training images (n = {figures['n']}), deployed, "
        f"clean {figures['clean']:.1%}, PGD-20 average {figures['pgd20_average']:.1%}",
        highlight=False,
    )


def _recipe(name: str, epochs: int | None) -> Recipe:
    from exitbench.errors import as_user_errors
    from exitbench.training.recipe_file import read_recipe
    from exitbench.training.recipes import named_recipe, shortened

    with as_user_errors():
        recipe = read_recipe(Path(name)) if name.endswith(".json") else named_recipe(name)
        return shortened(recipe, epochs) if epochs else recipe

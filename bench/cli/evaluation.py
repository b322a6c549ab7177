"""Shared by `bench run` and `bench check`: the options of an evaluation, and its exit codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.api.names import separated
from exitbench.cli.interrupts import INTERRUPTED
from exitbench.cli.option_types import NamedPath, Whole
from exitbench.cli.options import data_option, device_option, knob_options, normalisation_options, number, results_option

if TYPE_CHECKING:
    from exitbench.api.execution import Execution

FINISHED, SOME_FAILED = 0, 1

_OPTIONS: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.option(
        "--model",
        required=True,
        help="A name of `list models`, robustbench:NAME, timm:NAME, or the function that makes your own network: "
        "path/to/file.py:factory, package.module:factory, with arguments 'file.py:factory(n=3)'.",
    ),
    click.option(
        "--attack",
        "attacks",
        multiple=True,
        help="Names of `list attacks`, separated by commas, or the option several times. [default: all; with check: the "
        "baseline's]",
    ),
    click.option(
        "--dataset",
        default="auto",
        show_default=True,
        help="A name of `list datasets`, or your own images: imagefolder:PATH, hf:PATH, path/to/file.py:function. auto is the "
        "network's own dataset if it is available, else digits.",
    ),
    click.option("--training", help="Name of the weights, as in `list models`. [default: the first]"),
    click.option(
        "--weights",
        type=NamedPath(dir_okay=False),
        help="A safetensors file or PyTorch state dict, in place of registered weights or for your own network.",
    ),
    click.option(
        "--policy",
        help="The exit rule: entropy:T1,T2,...  patience:n  exit:k  vote@equal  margin@mmacs=60  file.py:make, or another of "
        "`list policies`. [default: the rule of the weights]",
    ),
    *normalisation_options,
    click.option(
        "--n", type=Whole(), help="Number of images, the first of the test split. [default: 64 on a CPU, 1000 on a GPU]"
    ),
    click.option(
        "--norm",
        type=click.Choice(["Linf", "L2"]),
        default="Linf",
        show_default=True,
        help="Norm that bounds the change of an image.",
    ),
    click.option(
        "--eps",
        callback=number,
        help="Largest change in that norm, for pixels in [0, 1], as 0.3 or 8/255. [default: the dataset's usual radius]",
    ),
    click.option(
        "--grid",
        type=Whole(1, 65535),
        help="Only images count whose pixels are multiples of 1/N: 255 for 8 bits, as in files. [default: any pixel values]",
    ),
    *knob_options(),
    click.option("--seed", type=Whole(), default=0, show_default=True, help="Seed of the attacks' random numbers."),
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="How attacks search: auto on the fastest copy of the network, found by timing; fp32 on the network itself, "
        "which always decides the result.",
    ),
    data_option,
    results_option,
)


def evaluation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an evaluation to a command; all but attacks, seed and results are fields of ``Request``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def attack_names(asked: Sequence[str]) -> list[str]:
    """Return the attacks given with ``--attack``, each of which may name several; ``all`` where the option is not given."""
    return [name for text in asked for name in separated(text)] if asked else ["all"]


def unwritable(results: Path, error: OSError) -> str:
    """Return the message for a results folder that cannot be written during a run."""
    return (
        f"{results} could not be written ({error.strerror or error}); finished cells are kept, "
        "give the same command again to resume"
    )


def exit_code(execution: Execution) -> int:
    """Return the exit code of an execution."""
    if execution.interrupted:
        return INTERRUPTED
    return SOME_FAILED if execution.failed else FINISHED

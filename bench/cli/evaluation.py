"""Shared by `bench run` and `bench check`: the options of an evaluation, and its exit codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.api.names import separated
from exitbench.cli.interrupts import INTERRUPTED
from exitbench.cli.option_types import NamedPath, Whole
from exitbench.cli.options import data_option, knob_options, normalisation_options, number, results_option

if TYPE_CHECKING:
    from exitbench.api.execution import Execution

FINISHED, SOME_FAILED = 0, 1

_OPTIONS: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.option(
        "--model",
        required=True,
        help="See `bench list models`; published: robustbench:NAME, pyautoattack:resnet18, timm:NAME; one of your own: "
        "path/to/file.py:factory, package.module:factory, with arguments 'file.py:factory(n=3)'.",
    ),
    click.option(
        "--attack",
        "attacks",
        multiple=True,
        help="See `bench list attacks`; several, or separated by commas [all; of check: the baseline's].",
    ),
    click.option(
        "--dataset",
        default="auto",
        show_default=True,
        help="See `bench list datasets`; of your own: imagefolder:PATH, hf:PATH, path/to/file.py:function. auto: the model's own "
        "if it can be had, else digits.",
    ),
    click.option("--training", help="Which of the model's weights."),
    click.option(
        "--weights",
        type=NamedPath(dir_okay=False),
        help="A safetensors file or PyTorch state dict instead of registered weights, or for a model of your own.",
    ),
    click.option(
        "--policy",
        help="entropy:T1,T2,...  patience:n  exit:k  vote@equal  margin@mmacs=60  file.py:make; see `bench list policies` "
        "[the weights' own]",
    ),
    *normalisation_options,
    click.option("--n", type=Whole(), help="Samples, the first n of the test split [64 on a CPU, 1000 on a GPU]."),
    click.option("--norm", type=click.Choice(["Linf", "L2"]), default="Linf", show_default=True),
    click.option("--eps", callback=number, help="Radius, as 0.3 or 8/255 [the dataset's]."),
    *knob_options(),
    click.option("--seed", type=Whole(), default=0, show_default=True),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="Precision of the search. auto: the fastest model here, measured; fp32: the plain model, which always decides.",
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
        "the same command goes on from there"
    )


def exit_code(execution: Execution) -> int:
    """Return the exit code of an execution."""
    if execution.interrupted:
        return INTERRUPTED
    return SOME_FAILED if execution.failed else FINISHED

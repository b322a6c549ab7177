"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from exitbench.attacks.settings import KNOBS
from exitbench.cli.option_types import NamedPath, Whole
from exitbench.models.number_text import real_number, whole_number


def number(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Parse a finite number >= 0, which may be a fraction: ``0.3`` or ``8/255``."""
    if value is None:
        return None
    try:
        over, slash, under = value.partition("/")
        found = float(Fraction(whole_number(over), whole_number(under))) if slash else real_number(value)
    except (ValueError, ArithmeticError):
        raise click.BadParameter(f"{value!r} is not a number in the digits 0-9, or a fraction such as 8/255") from None
    if not (math.isfinite(found) and found >= 0):
        raise click.BadParameter(f"{value!r} is not a finite number >= 0")
    return found


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Parse finite numbers >= 0 that are separated by commas, each of which may be a fraction: ``0.49,125/255``."""
    if value is None:
        return None
    return tuple(float(number(ctx, param, each.strip()) or 0.0) for each in value.split(","))


normalisation_options = (
    click.option(
        "--mean",
        callback=numbers,
        help="Mean of each channel, as 0.49,0.48,0.45, to normalise images for a network that does not do so itself.",
    ),
    click.option("--std", callback=numbers, help="Standard deviation of each channel; goes with --mean."),
)


def with_normalisation(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--mean`` and ``--std`` to a command."""
    for option in reversed(normalisation_options):
        command = option(command)
    return command


_network_options = (
    click.option(
        "--model",
        required=True,
        help="A name of `list models`, or the function that makes your own network: path/to/file.py:factory, "
        "package.module:factory, with arguments 'file.py:factory(n=3)'.",
    ),
    click.option("--dataset", default="auto", show_default=True, help="As in `run`."),
    click.option("--training", help="Name of the weights, as in `list models`. [default: the first]"),
    click.option("--weights", type=NamedPath(dir_okay=False), help="A file of weights in place of registered ones."),
    click.option("--policy", help="The exit rule, as in `run`. [default: the rule of the weights]"),
    *normalisation_options,
)


def with_network(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name one network, its weights and its exit rule to a command."""
    for option in reversed(_network_options):
        command = option(command)
    return command


def _data_folder() -> Path:
    from exitbench.models.user_folders import data_folder

    return data_folder()


data_option = click.option(
    "--data",
    type=NamedPath(file_okay=False),
    envvar="EXITBENCH_DATA",
    default=_data_folder,
    help="Folder of the datasets, also set by EXITBENCH_DATA. [default: the platform's, on Linux ~/.local/share/exitbench/data]",
)

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes a GPU if there is one.",
)

results_option = click.option(
    "--results",
    type=NamedPath(file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of results: stored work, leaderboards, plots, page.",
)


def _load_rules(_ctx: click.Context, _param: click.Parameter, references: tuple[str, ...]) -> None:
    from exitbench.errors import as_user_errors
    from exitbench.models.rules.own import load_policy

    for reference in references:
        with as_user_errors():
            load_policy(reference)


rule_option = click.option(
    "--rule",
    multiple=True,
    expose_value=False,
    callback=lambda ctx, param, value: _load_rules(ctx, param, value) if value else None,
    help="Your own exit rule that stored results were made with, as file.py:make. The file is executed.",
)


def knob_options() -> Iterator[Callable[[Callable[..., None]], Callable[..., None]]]:
    """Yield an option for every setting of the attacks, in the order of their definition."""
    for name, knob in KNOBS.items():
        details: dict[str, Any] = {"default": knob.default, "show_default": knob.default is not None, "help": knob.help}
        if knob.choices:
            details["type"] = click.Choice(knob.choices)
        elif knob.kind is int:
            details["type"] = Whole(min=1)
        elif knob.kind is float:
            details["callback"] = number
            details["default"] = None if knob.default is None else str(knob.default)
        yield click.option(f"--{name.replace('_', '-')}", **details)

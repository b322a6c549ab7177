"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from exitbench.attacks.settings import KNOBS


def number(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Parse a finite number >= 0, which may be a fraction: ``0.3`` or ``8/255``."""
    if value is None:
        return None
    try:
        found = float(Fraction(value)) if "/" in value else float(value)
    except (ValueError, ArithmeticError):
        raise click.BadParameter(f"{value!r} is not a number or a fraction such as 8/255") from None
    if not (math.isfinite(found) and found >= 0):
        raise click.BadParameter(f"{value!r} is not a finite number >= 0")
    return found


class FiniteRange(click.FloatRange):
    """A range of finite numbers; ``nan`` compares with no bound, so that ``FloatRange`` takes it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a number.

        Raises:
            click.BadParameter: If it is not finite or not in the range.
        """
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return found


def _data_folder() -> Path:
    from exitbench.models.user_folders import data_folder

    return data_folder()


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="EXITBENCH_DATA",
    default=_data_folder,
    help="Data directory (or set EXITBENCH_DATA) [the platform's; on Linux ~/.local/share/exitbench/data].",
)

results_option = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of the store, the leaderboards and the plots.",
)


def knob_options() -> Iterator[Callable[[Callable[..., None]], Callable[..., None]]]:
    """Yield an option for every setting of the attacks, in the order of their definition."""
    for name, knob in KNOBS.items():
        details: dict[str, Any] = {"default": knob.default, "show_default": knob.default is not None, "help": knob.help}
        if knob.choices:
            details["type"] = click.Choice(knob.choices)
        elif knob.kind is int:
            details["type"] = click.IntRange(min=1)
        elif knob.kind is float:
            details["callback"] = number
            details["default"] = None if knob.default is None else str(knob.default)
        yield click.option(f"--{name.replace('_', '-')}", **details)

"""The types of options: numbers in ASCII digits, and paths that are not empty."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import real_number, whole_number


class Whole(click.IntRange):
    """A whole number in ASCII digits: ``int`` reads those of every script."""

    name = "integer"

    def _describe_range(self) -> str:
        """Return the range for the help text; click writes ``x<=None`` where there is none."""
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(whole_number(value) if isinstance(value, str) else value, param, ctx)
        except InvalidValue as error:
            self.fail(str(error), param, ctx)


class Real(click.FloatRange):
    """A number in ASCII digits that is not NaN, which no range would refuse."""

    name = "float"

    def _describe_range(self) -> str:
        """Return the range for the help text; click writes ``x<=None`` where there is none."""
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            found = real_number(value) if isinstance(value, str) else value
        except InvalidValue as error:
            self.fail(str(error), param, ctx)
        if found != found:  # noqa: PLR0124 - NaN alone
            self.fail(f"{value!r} is not a number", param, ctx)
        return super().convert(found, param, ctx)


class Finite(Real):
    """A finite number in ASCII digits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return found


class NamedPath(click.Path):
    """A path; an empty one, which would be the current folder, is refused."""

    def __init__(self, **details: Any) -> None:
        super().__init__(path_type=Path, **details)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty; '.' is the current folder", param, ctx)
        return super().convert(value, param, ctx)

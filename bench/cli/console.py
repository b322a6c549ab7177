"""The terminal that tables and progress are printed to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from exitbench.cli.say import OutputLost
from exitbench.models.printable import one_line, printable


class _Terminal(Console):
    """A console that shows control characters in texts rather than obey them; its own styles and movements are not texts.

    A text is one line; tables and groups of lines have their foreign texts from ``exitbench.report.plain_text``.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*(one_line(each) if isinstance(each, str) else each for each in objects), **options)
        except OSError as error:
            raise OutputLost(error) from error

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this while it handles the error, and would end the process


def terminal(*, stderr: bool = False) -> Console:
    """Return a console that prints names unchanged: rich would replace the colons in ``slowdown:free:`` by an emoji."""
    return _Terminal(stderr=stderr, emoji=False)

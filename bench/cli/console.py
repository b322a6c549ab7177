"""The terminal that commands print to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Once(logging.Filter):
    """A filter that lets each message of the log pass once: several parts of a command read the same files."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        fresh = message not in self._said
        self._said.add(message)
        return fresh


def terminal(*, stderr: bool = False) -> Console:
    """Return a console that prints names unchanged: rich would replace the colons in ``slowdown:free:`` by an emoji."""
    from rich.console import Console

    return Console(stderr=stderr, emoji=False)

"""The terminal that commands print to."""

from __future__ import annotations

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """A console that prints names as they are: rich would make a picture of the colons in ``slowdown:free:``."""
    return Console(stderr=stderr, emoji=False)

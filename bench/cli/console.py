"""The terminal that commands print to."""

from __future__ import annotations

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """Return a console that prints names unchanged: rich would replace the colons in ``slowdown:free:`` by an emoji."""
    return Console(stderr=stderr, emoji=False)

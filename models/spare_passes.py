"""Passes that were made ahead of their turn and turned out not to be needed; counts of passes leave them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Spared = Callable[[int, int], None]

_listeners: list[Spared] = []


def spared(forwards: int, backwards: int) -> None:
    """Say that so many passes, counted per sample, were not needed."""
    for listener in _listeners:
        listener(forwards, backwards)


@contextmanager
def on_spared(listener: Spared) -> Iterator[None]:
    """Call ``listener`` with the numbers of forward and backward passes that turn out not to be needed within the context."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)

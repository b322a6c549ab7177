"""Batches that do not fit in memory: halved and tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there was no memory left; torch has no class of its own for a CPU's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def in_halves(call: Callable[[slice], Result], rows: slice) -> list[Result]:
    """``call(rows)`` for all rows at once, or for halves of them, and halves of these, that fit in memory; in order.

    Args:
        rows: from ``start`` up to ``stop``, both given.

    Raises:
        Exception: what ``call`` raises, for want of memory only where it does so for a single row.
    """
    try:
        return [call(rows)]
    except Exception as error:
        if rows.stop - rows.start < 2 or not out_of_memory(error):
            raise
    # Outside of the handler, where the error no longer holds on to what did not fit.
    middle = (rows.start + rows.stop) // 2
    return in_halves(call, slice(rows.start, middle)) + in_halves(call, slice(middle, rows.stop))

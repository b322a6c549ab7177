"""Handles out-of-memory errors: batches that do not fit are halved and tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` is an out-of-memory error; on CPUs, torch has no class for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def in_halves(call: Callable[[slice], Result], rows: slice) -> list[Result]:
    """Call ``call`` with all rows at once, or, if they do not fit in memory, with halves of them, recursively.

    Args:
        call: The function to call with a range of rows.
        rows: Range of rows; ``start`` and ``stop`` must be given.

    Returns:
        The results, in the order of the rows.

    Raises:
        Exception: What ``call`` raises; an out-of-memory error only for a single row.
    """
    try:
        return [call(rows)]
    except Exception as error:
        if rows.stop - rows.start < 2 or not out_of_memory(error):
            raise
    # Outside of the handler, so that the error no longer keeps the tensors alive that did not fit.
    middle = (rows.start + rows.stop) // 2
    return in_halves(call, slice(rows.start, middle)) + in_halves(call, slice(middle, rows.stop))

"""What went wrong in a cell, or in trust checks, that could not be finished."""

from __future__ import annotations

from exitbench.models.field_types import Spec, Text
from exitbench.models.stored import Format, Stored
from exitbench.store.migrations import error_1_to_2


class CellError(Stored, frozen=True, kw_only=True):
    """One error, kept until the next try succeeds.

    Attributes:
        attack: its name, or ``trust checks``.
        error: the exception's class and message.
        spec: the resolved attack, as JSON values; None of trust checks.
    """

    attack: Text
    error: Text
    spec: Spec | None = None


CELL_ERROR = Format("a cell's error", CellError, {1: error_1_to_2})

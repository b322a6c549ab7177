"""A copy of a network as it is before it has seen an image of the evaluation."""

from __future__ import annotations

import copy

from exitbench.models.early_exit import EarlyExitNet


def unused_copy(model: EarlyExitNet) -> EarlyExitNet | None:
    """Return a deep copy of ``model``; None if its class does not allow one.

    A network that remembers what it is given computes otherwise after an attack than such a copy does.
    """
    try:
        return copy.deepcopy(model)
    except Exception:  # noqa: BLE001 - the class is the user's: whatever its copying raises, there is no copy
        return None

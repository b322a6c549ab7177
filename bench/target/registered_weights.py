"""Finds registered weights by their digest."""

from __future__ import annotations

from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.weights import known_weights


def registered_weights(model: str, sha256: str) -> Path:
    """Return the registered weight file of ``model`` with this digest.

    Raises:
        UserError: If there is none; the message lists the known weights and says what to do.
    """
    known = known_weights(model)
    for card, path in known:
        if card.sha256 == sha256:
            return path
    have = ", ".join(f"{card.dataset} ({card.training}) {card.sha256[:12]}" for card, _ in known) or "none at all"
    raise UserError(
        f"no weights of {model} with SHA-256 {sha256[:12]}... are registered here; there are: {have}. "
        "Name the file with --weights, or its folder with EXITBENCH_WEIGHTS"
    )

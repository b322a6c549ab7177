"""From each older schema of the store's files to the next: JSON values in, JSON values out."""

from __future__ import annotations

from exitbench.models.stored import Content


def error_1_to_2(content: Content) -> Content:
    """Errors of the first versions did not always name their attack."""
    return {"attack": "unknown", **content}

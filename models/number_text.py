"""Numbers as people write them."""

from __future__ import annotations

_LARGEST = 1e6  # beyond it no radius is told in pixels


def eps_text(eps: float) -> str:
    """``0.3`` where that is the number itself, ``8/255`` where it is such a fraction, else every digit."""
    short = f"{eps:g}"
    if float(short) == eps:
        return short
    if abs(eps) > _LARGEST:
        return repr(eps)
    pixels = round(eps * 255)
    return f"{pixels}/255" if abs(eps - pixels / 255) < 1e-12 else repr(eps)

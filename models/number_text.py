"""Numbers as people write them, and how they are read: with ASCII digits alone."""

from __future__ import annotations

import re

from exitbench.models.errors import InvalidValue

_WHOLE = re.compile("[+-]?[0-9]+")
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


def cost_text(cost: float, decimals: int = 2) -> str:
    """Write a cost with as many decimals, or with two significant digits where these would leave fewer."""
    return f"{cost:.{decimals}f}" if cost == 0 or abs(cost) >= 10 ** (1 - decimals) else f"{cost:.2g}"


def whole_number(text: str) -> int:
    """Parse a whole number. Python reads the digits of every script, and underscores: the same number under many names.

    Raises:
        InvalidValue: If ``text`` is anything but ASCII digits, with a sign or without.
    """
    if not _WHOLE.fullmatch(text.strip(" ")):
        raise InvalidValue(f"{text!r} is not a whole number in the digits 0-9")
    try:
        return int(text)
    except ValueError as error:  # Python reads some thousands of digits at most
        raise InvalidValue(f"a number of {len(text)} digits is not read") from error


def real_number(text: str) -> float:
    """Parse a number as ``float`` does, of ASCII characters without underscores.

    Raises:
        InvalidValue: If ``text`` is not such a number.
    """
    try:
        if not text.isascii() or "_" in text:
            raise ValueError
        return float(text)
    except ValueError as error:
        raise InvalidValue(f"{text!r} is not a number in the digits 0-9") from error

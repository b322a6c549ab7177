"""Numbers as people write them."""

from __future__ import annotations

from exitbench.models.errors import InvalidValue


def eps_text(eps: float) -> str:
    """``0.3`` where that is the number itself, ``8/255`` where it is such a fraction, else every digit."""
    short = f"{eps:g}"
    if float(short) == eps:
        return short
    pixels = round(eps * 255)
    return f"{pixels}/255" if abs(eps - pixels / 255) < 1e-12 else repr(eps)


def number(text: str) -> float:
    """Return the number that ``text`` is, in ASCII; infinities are allowed.

    Raises:
        InvalidValue: If it is none.
    """
    try:
        if not text.isascii():
            raise ValueError(f"could not convert string to float: {text!r}")
        return float(text)
    except ValueError as error:
        raise InvalidValue(str(error)) from error


def whole_number(text: str) -> int:
    """Return the integer that ``text`` is, in ASCII.

    Raises:
        InvalidValue: If it is none.
    """
    try:
        if not text.isascii():
            raise ValueError(f"invalid literal for int() with base 10: {text!r}")
        return int(text)
    except ValueError as error:
        raise InvalidValue(str(error)) from error

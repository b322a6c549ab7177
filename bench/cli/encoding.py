"""Output on a terminal whose encoding does not have every character."""

from __future__ import annotations

import codecs
import sys

_IN_ASCII = {
    "\u2715": "x",
    "\u25b2": "!",
    "\u00b7": ".",
    "\u2026": "~",
    "\u274c": "x",
    "\u26a0": "!",
    "\ufe0f": "",
    "\u2705": "+",
}
"""What signs of reports, and the end of a cell of a table that was cut short, become where they cannot be printed."""

_HANDLER = "exitbench.printable"


def print_whatever_can_be_printed() -> None:
    """Have both output streams replace characters that their encoding does not have, in place of raising ``UnicodeEncodeError``.

    The streams keep their encoding, which is the terminal's.
    """
    codecs.register_error(_HANDLER, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_HANDLER)


def _replacement(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unprintable = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(one, one.encode("ascii", "backslashreplace").decode()) for one in unprintable), error.end

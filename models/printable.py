"""Text from elsewhere (records, claims, files, other packages' messages) as it may be printed: in one line, and visible.

Escape codes would rewrite the terminal, line breaks forge lines of ours, marks of direction and invisible characters show
something else than is there, and a line that begins with ``::error`` or holds ``##[group]`` is a command to the CI system that
shows the log.
"""

from __future__ import annotations

import logging
import re
import unicodedata

_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Characters without a shape of their own that Python counts as printable."""

_COMMANDS = re.compile(r"::(?=[A-Za-z])|##(?=\w*\[)")
"""What begins a command: GitHub's (https://docs.github.com/actions/reference/workflow-commands), Azure's or TeamCity's."""


def one_line(text: object) -> str:
    """Return a text without line breaks, control characters and commands; what is invisible becomes its escape sequence."""
    return _COMMANDS.sub(_apart, _visible(str(text), ""))


def printable(text: str) -> str:
    """Return ``one_line`` of a text that was put together by us: line breaks stay."""
    return _COMMANDS.sub(_apart, _visible(text, "\n"))


def _visible(text: str, kept: str) -> str:
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(one if one in kept or _is_visible(one) else one.encode("unicode_escape").decode() for one in text)


def _is_visible(one: str) -> bool:
    return (one.isprintable() or unicodedata.category(one) == "Zs") and not _INVISIBLE.match(one)


def _apart(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1]}"


class LineFormatter(logging.Formatter):
    """Formats a message of the log in one line; a traceback follows in lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return one_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        return printable(super().formatException(ei))  # type: ignore[arg-type]

"""Text for rich's tables and paragraphs in which nothing is markup, a control character or a line break."""

from __future__ import annotations

from rich.markup import escape
from rich.text import Text

from exitbench.models.printable import one_line


def cell(text: object) -> str:
    """Return the text of a table's cell."""
    return escape(one_line(text))


def line(text: object, style: str = "") -> Text:
    """Return a line."""
    return Text(one_line(text), style=style)

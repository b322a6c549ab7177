"""Tables as Markdown, for READMEs and pull requests."""

from __future__ import annotations

import re

from exitbench.models.printable import one_line
from exitbench.report.paper.columns import Value
from exitbench.report.paper.table import PaperTable, Row


def to_markdown(table: PaperTable, caption: str | None = None, *, markup: bool = False) -> str:
    """Return the caption, the table, and what its marks mean.

    Args:
        table: The table.
        caption: What stands above it; None for what was measured, an empty text for nothing.
        markup: Whether the caption is Markdown already. Otherwise nothing in it is markup.
    """
    told = table.caption if caption is None else caption
    told = told if markup and caption is not None else _escaped(told)
    heads = [_escaped(f"{column.heading} ({column.unit})" if column.unit else column.heading) for column in table.columns]
    rules = ["---:" if column.unit or column.name in ("exits", "n") else "---" for column in table.columns]
    rows = [_cells(row) for row in table.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
    notes = "; ".join(f"{mark} {_escaped(text)}".strip() for mark, text in table.notes)
    parts = [told, "\n".join(lines), f"{notes}." if notes else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(row: Row) -> list[str]:
    cells = [_value(value, best=best) for value, best in zip(row.values, row.best, strict=True)]
    return [f"{cells[0]} {row.marks}".rstrip(), *cells[1:]]


def _value(value: Value, *, best: bool) -> str:
    if value.markup:
        return value.text
    text = f"**{_escaped(value.text)}**" if best else _escaped(value.text)
    text = f"≥ {text}" if value.at_least else text
    return f"{text} \\[{', '.join(value.interval)}\\]" if value.interval else text


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", one_line(text))

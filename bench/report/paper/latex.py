"""Tables as LaTeX, for the package booktabs."""

from __future__ import annotations

from exitbench.models.printable import one_line
from exitbench.report.paper.columns import Column, Value
from exitbench.report.paper.table import DAGGER, DOUBLE, PARAGRAPH, SECTION, PaperTable, Row

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
_NORMS = {"Linf": r"$\ell_\infty$", "L2": r"$\ell_2$"}
_MARKS = {DAGGER: r"\dagger", DOUBLE: r"\ddagger", SECTION: r"\S", PARAGRAPH: r"\P"}


def to_latex(table: PaperTable, caption: str | None = None, label: str | None = None, *, markup: bool = False) -> str:
    r"""Return a ``table`` environment; it needs ``\usepackage{booktabs}``.

    Args:
        table: The table.
        caption: What stands above it; None for what was measured, an empty text for nothing.
        label: What ``\ref`` takes; None for one from the name of the board.
        markup: Whether the caption is LaTeX already. Otherwise its special characters are escaped.
    """
    told = table.caption if caption is None else caption
    told = told if markup and caption is not None else escaped(told)
    for norm, symbol in _NORMS.items() if caption is None else ():
        told = told.replace(f" {norm}, radius ", f" {symbol}, radius ")
    heads = " & ".join(_heading(column) for column in table.columns)
    rows = [rf"    {' & '.join(_cells(row))} \\" for row in table.rows]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}[t]",
            r"  \centering",
            *([rf"  \caption{{{told}}}"] if told else []),
            rf"  \label{{{label or f'tab:{table.name}'}}}",
            rf"  \begin{{tabular}}{{{''.join(_aligned(column) for column in table.columns)}}}",
            r"    \toprule",
            rf"    {heads} \\",
            r"    \midrule",
            *rows,
            r"    \bottomrule",
            r"  \end{tabular}",
            *_notes(table),
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Return a text as LaTeX that prints as this text."""
    return "".join(_SPECIAL.get(character, character) for character in one_line(text))


def _heading(column: Column) -> str:
    return escaped(f"{column.heading} ({column.unit})" if column.unit else column.heading)


def _aligned(column: Column) -> str:
    return "r" if column.unit or column.name in ("exits", "n") else "l"


def _cells(row: Row) -> list[str]:
    cells = [_value(value, best=best) for value, best in zip(row.values, row.best, strict=True)]
    marks = "".join(_MARKS[mark] for mark in row.marks)
    return [f"{cells[0]}$^{{{marks}}}$" if marks else cells[0], *cells[1:]]


def _value(value: Value, *, best: bool) -> str:
    if value.markup:
        return value.text
    text = "--" if value.text == "-" else escaped(value.text)
    text = rf"\textbf{{{text}}}" if best else text
    text = rf"$\geq$ {text}" if value.at_least else text
    return rf"{text} {{\scriptsize [{', '.join(value.interval)}]}}" if value.interval else text


def _notes(table: PaperTable) -> list[str]:
    if not table.notes:
        return []
    told = "; ".join(f"$^{{{_MARKS[mark]}}}$ {escaped(text)}" if mark else escaped(text) for mark, text in table.notes)
    return [r"  \par\smallskip", rf"  {{\footnotesize {told}.\par}}"]

"""The result of the gate in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exitbench.report.plain_text import cell, line
from exitbench.report.regression.text import GateReport, figures, flips_text, row_status

_COLOURS = {"fail": "bold red", "improved": "bold yellow", "pass": "bold green"}
_SHOWN = 12


def summary(report: GateReport) -> RenderableType:
    """Return table, flips and verdict."""
    table = Table(box=None, pad_edge=False)
    table.add_column("row", overflow="fold", min_width=len("worst case"))
    for heading in ("baseline %", "now %", "points", "lost", "won", "p", "mmacs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", min_width=len("REGRESSION,"))
    for row in report.judgement.rows:
        status = row_status(row)
        bad = row.status == "regression" or row.cost == "over"
        colour = "red" if bad else "" if status == "ok" else "yellow"
        dearer = "-" if row.mmacs is None else f"{100 * row.dearer:+.1f} %"
        table.add_row(cell(row.title), *figures(row)[:-1], dearer, Text(status, style=colour))
    flips = [each for row in report.judgement.rows for each in flips_text(row, _SHOWN)]
    verdict = line(report.verdict, _COLOURS[report.judgement.outcome])
    why = [line(f"  {each}") for each in report.why]
    notes = [line(note, "dim") for note in report.notes]
    return Group(line(report.subject, "bold"), table, *map(line, flips), *notes, verdict, *why)

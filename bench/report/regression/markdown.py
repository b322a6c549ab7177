"""The result of the gate as Markdown, for job summaries and pull requests."""

from __future__ import annotations

import html
import re

from exitbench.models.printable import one_line
from exitbench.report.regression.text import HEADINGS, GateReport, figures, flips_text, row_status

SIGNS = {"fail": "\u274c", "improved": "\u26a0\ufe0f", "pass": "\u2705"}
"""The sign before each outcome."""


def to_markdown(report: GateReport) -> str:
    """Return headline, table and collapsed flips; names of models and files are escaped."""
    lines = [f"### {SIGNS[report.judgement.outcome]} {report.verdict}: {escaped(report.subject)}", ""]
    lines += [f"* {escaped(line)}" for line in report.why]
    lines += ["", f"| row | {' | '.join(HEADINGS)} | |", f"|---|{'---:|' * len(HEADINGS)}---|"]
    for row in report.judgement.rows:
        lines.append(f"| {' | '.join(map(escaped, (row.title, *figures(row), row_status(row))))} |")
    if flips := [line for row in report.judgement.rows for line in flips_text(row)]:
        lines += ["", "<details><summary>samples that flipped, by index in the test split</summary>", ""]
        lines += [f"* {escaped(line)}" for line in flips]
        lines += ["", "</details>"]
    return "\n".join([*lines, "", *(f"{escaped(note)}  " for note in report.notes), ""])


def escaped(text: str) -> str:
    """Return text that Markdown shows unchanged: one line, without HTML, links or table cells."""
    plain = html.escape(one_line(" ".join(text.split())), quote=False)
    return re.sub(r"([\\`*\[\]|~@#])", _as_entity, plain)


def _as_entity(found: re.Match[str]) -> str:
    # An entity, not a backslash: tables split at a backslash's bar in some renderers, and mentions ignore it.
    return f"&#{ord(found[1])};"

"""What was proven of an evaluation, in the terminal and in a word."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from exitbench.models.number_text import cost_text
from exitbench.report.plain_text import cell, line
from exitbench.stats.proportions import wilson
from exitbench.store.certificate import Certificate

NOTHING = "nothing"
"""What is said of a network of which no sample is certified."""


def summary(certificate: Certificate) -> RenderableType:
    """Return the table of a certificate: a row for each method and those before it."""
    threat = certificate.threat.text
    title = (
        f"{cell(certificate.model)} on {cell(certificate.dataset)} test, {threat}, n = {certificate.n}: what no attack can break"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("bounds")
    for heading in ("certified %", "95 % interval", "at most\nmmacs", "s"):
        table.add_column(heading, justify="right")
    for method in certificate.methods:
        low, high = wilson(len(method.right), certificate.n)
        cost, seconds = cost_text(certificate.cost(method)), f"{method.seconds:.1f}"
        table.add_row(
            method.name, f"{100 * certificate.accuracy(method):.2f}", f"{100 * low:.1f} - {100 * high:.1f}", cost, seconds
        )
    return Group(table, *(line(note, "dim") for note in _notes(certificate)))


def _notes(certificate: Certificate) -> list[str]:
    last = certificate.proven.last
    counts = " ".join(str(last.count(k)) for k in range(len(certificate.mmacs)))
    notes = [f"samples by the last exit that an image of their ball may take, exit 1 first: {counts}"]
    if not certificate.understood:
        notes.append("the gates of this rule have no bounds: a sample is certified only where every exit is right")
    if not certificate.proven.right:
        notes.append(f"{NOTHING} is certified: the bounds are too loose for this network, which says nothing of its robustness")
    notes.append(f"policy {certificate.policy}, weights {certificate.training} {certificate.weights[:12]}")
    return notes


def certified_share(certificate: Certificate) -> float | str:
    """Return the certified accuracy for the leaderboard: a share, or a word where no sample is certified."""
    return certificate.accuracy() if certificate.proven.right else NOTHING

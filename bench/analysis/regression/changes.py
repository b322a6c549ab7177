"""Describes the changes in a new baseline, for the commit."""

from __future__ import annotations

from collections.abc import Sequence

from exitbench.analysis.regression.judge import judge
from exitbench.analysis.regression.snapshot import Snapshot
from exitbench.models.number_text import cost_text
from exitbench.scoring.rows import TITLES


def changes(before: Snapshot | None, now: Snapshot, differences: Sequence[str]) -> list[str]:
    """Return the changes, one per line, from ``regression.identity.differences`` and the verdicts; if new, the figures."""
    if before is None:
        return [f"{now.title}, new: {', '.join(_figures(now))}"]
    found = [f"changed: {line}" for line in differences]
    for name in ("training", "weights", "seed"):
        then, today = str(getattr(before.subject, name)), str(getattr(now.subject, name))
        if then != today:
            found.append(f"{name} {then[:40]} -> {today[:40]}")
    if differences:
        return [*found, f"was: {', '.join(_figures(before))}", f"now: {', '.join(_figures(now))}"]
    for row in judge(before, now).rows:
        if row.lost or row.won:
            shares = f"{100 * row.before / row.n:.2f} -> {100 * row.now / row.n:.2f} %"
            found.append(f"{row.title}: {shares} ({len(row.lost)} lost, {len(row.won)} won)")
        if row.mmacs and row.mmacs[0] != row.mmacs[1]:
            found.append(f"{row.title}: mean mmacs {' -> '.join(map(cost_text, row.mmacs))}")
    return [f"{now.title}: {len(found)} changes" if found else f"{now.title}: nothing changed", *found]


def _figures(measured: Snapshot) -> list[str]:
    return [f"{TITLES.get(name, name)} {100 * row.right.mean():.2f} %" for name, row in measured.rows.items()]

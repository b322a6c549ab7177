"""A comparison as a tidy table, and what it is called."""

from __future__ import annotations

import pandas as pd

from exitbench.analysis.compare.pairs import Comparison
from exitbench.report.compare.terminal import name_of


def comparison_table(found: Comparison) -> pd.DataFrame:
    """Return one row per pair: shares of A and B and their difference with its interval, p, and mean costs in mmacs."""
    rows = []
    for pair in found.pairs:
        mmacs_a, mmacs_b = pair.mmacs or (None, None)
        low, high = pair.interval
        rows.append(
            {
                "row": pair.title,
                "a": pair.a / pair.n,
                "b": pair.b / pair.n,
                "difference": pair.difference,
                "low": low,
                "high": high,
                "only_a": pair.only_a,
                "only_b": pair.only_b,
                "p": pair.p,
                "mmacs_a": mmacs_a,
                "mmacs_b": mmacs_b,
            }
        )
    return pd.DataFrame(rows)


def comparison_title(found: Comparison) -> str:
    """Return what is compared, in a line."""
    record = found.a.record
    threat = f"{record.dataset} {record.threat.text}, n = {record.n}"
    return f"A: {name_of(found.a, found.b)}; B: {name_of(found.b, found.a)}; {threat}"

"""Reads the curves that ``bench sweep`` wrote, for the page."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exitbench.store.csv_text import text_in
from exitbench.store.identity import Identity

_log = logging.getLogger(__name__)

Network = tuple[str, ...]
Interval = tuple[float, float, float]

_KEY = ("model", "training", "weights", "dataset", "data", "norm", "eps", "grid", "n")


@dataclass(frozen=True)
class Swept:
    """One exit rule of a curve.

    Attributes:
        policy: the rule.
        mmacs: mean cost on the clean samples.
        clean: share and its interval.
        worst: the same of the worst case; None where nothing was attacked.
    """

    policy: str
    mmacs: float
    clean: Interval
    worst: Interval | None


@dataclass(frozen=True)
class SweptCurve:
    """A network under one family of rules.

    Attributes:
        rule: what they compare with their thresholds.
        points: cheapest first, from exit 1 alone to the last.
        floor: share that no rule's worst case falls below; None where nothing was attacked.
    """

    rule: str
    points: tuple[Swept, ...]
    floor: float | None


Curves = Mapping[Network, Sequence[SweptCurve]]


def network_of(of: Identity) -> Network:
    """Return the key that a run record and a row of a sweep share if network, samples and threat model are the same."""
    columns = of.columns()
    return tuple(columns.get(name, "") for name in _KEY)


def read_curves(folder: Path) -> Curves:
    """Read all curves in the tables of ``folder``; if several have the same network and rule, the shortest file name wins.

    Files that are not tables of a sweep are logged and left out.
    """
    found: dict[Network, dict[str, SweptCurve]] = {}
    for path in sorted(folder.glob("*.csv"), key=lambda path: (len(path.name), path.name)):
        try:
            for network, curve in _curves(path):
                found.setdefault(network, {}).setdefault(curve.rule, curve)
        except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
            _log.error("%s is no table of a sweep and is left out of the page: %r", path, error)
    return {network: tuple(rules.values()) for network, rules in found.items()}


def _curves(path: Path) -> list[tuple[Network, SweptCurve]]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if any(None in row.values() for row in lines):
        raise ValueError("a row is cut short")
    rows = [row for row in lines if row["rule"] and row["point"] != "deployed"]
    families: dict[tuple[Network, str], list[dict[str, str]]] = {}
    for row in rows:
        key = tuple(text_in(row, name) if name != "grid" or name in row else "" for name in _KEY)
        families.setdefault((key, row["rule"]), []).append(row)
    return [(network, _curve(rule, family)) for (network, rule), family in families.items()]


def _curve(rule: str, rows: Sequence[dict[str, str]]) -> SweptCurve:
    points = [
        Swept(row["policy"], float(row["mmacs"]), _interval(row, "clean"), _interval(row, "worst") if row["worst"] else None)
        for row in rows
    ]
    floors = [float(row["ra_any"]) for row in rows if row["ra_any"]]
    return SweptCurve(rule, tuple(sorted(points, key=lambda point: point.mmacs)), floors[0] if floors else None)


def _interval(row: Mapping[str, str], name: str) -> Interval:
    share, low, high = float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"])
    if not 0 <= low <= share <= high <= 1:
        raise ValueError(f"{name} {share} in {low}..{high}")
    return share, low, high

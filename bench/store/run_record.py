"""The record of a run: which cells belong to which model, data, policy and attack names; all that a report needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from exitbench.models.spec import canonical_json

if TYPE_CHECKING:  # reading records back takes no attack's code
    from exitbench.attacks.regions import ThreatModel


CLEAN = "none"
"""Name of the clean cells' attack."""


RECORD_SCHEMA = 1

_OWN = ("attacks", "trust", "seed", "note", "asked")  # what records of the same evaluation may differ in


def evaluation_key(record: Mapping[str, Any]) -> str:
    """What two records share when they are of the same evaluation: everything but what ``_OWN`` names."""
    return canonical_json({name: value for name, value in record.items() if name not in _OWN})


def eps_text(eps: float) -> str:
    """``0.3`` where that is the number itself, ``8/255`` where it is such a fraction, else every digit."""
    short = f"{eps:g}"
    if float(short) == eps:
        return short
    pixels = round(eps * 255)
    return f"{pixels}/255" if abs(eps - pixels / 255) < 1e-12 else repr(eps)


def board_name(dataset: str, threat_model: ThreatModel) -> str:
    """Name of the leaderboard a result belongs to, usable as a file name."""
    return f"{dataset}-{threat_model.norm}-{eps_text(threat_model.eps).replace('/', '_')}"

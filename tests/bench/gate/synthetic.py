"""Measured evaluations made of bits, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from exitbench.analysis.regression.snapshot import Snapshot, SnapshotSubject
from exitbench.scoring.ranking import WORST
from exitbench.scoring.rows import Row
from exitbench.store.run_record import CLEAN

MMACS = (1.0, 5.0, 10.0)


def bits(text: str) -> np.ndarray:
    return np.array([digit == "1" for digit in text])


def made(
    clean: Sequence[bool], attacks: Mapping[str, Sequence[bool]], exits: Mapping[str, Sequence[int]] | None = None, **subject
) -> Snapshot:
    """An evaluation whose worst case is over its attacks; samples take the first exit unless told otherwise."""
    n = len(clean)
    rows = {CLEAN: np.asarray(clean), **{name: np.asarray(clean) & np.asarray(right) for name, right in attacks.items()}}
    taken = {name: np.asarray((exits or {}).get(name, [0] * n)) for name in rows}
    worst = np.logical_and.reduce(list(rows.values()))
    about = {
        **{"model": "toy", "training": "average", "weights": "a" * 64, "dataset": "digits", "data": "d" * 64, "norm": "Linf"},
        **{"eps": 0.2, "n": n, "policy": "entropy:0.1,0.2", "calibration": "c" * 16, "mmacs": MMACS, "seed": 0},
        **subject,
    }
    specs = {
        name: {
            "type": "PolicyAttack" if name == "adaptive" else "PGD",
            "version": 1,
            "region": {"type": "Ball", "norm": "Linf", "eps": about["eps"]},
            **({"policy": {"calibration": about["calibration"]}} if name == "adaptive" else {"steps": 20}),
        }
        for name in attacks
    }
    found = {**{name: Row(right, taken[name]) for name, right in rows.items()}, WORST: Row(worst, None)}
    return Snapshot(SnapshotSubject(**about), {"attacks": list(attacks), "n": n}, specs, found, "torch 1")

"""What has to hold in a baseline beyond its digest: settings that can be asked for, costs, and verdicts that fit together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from exitbench.analysis.regression.snapshot import Snapshot, SnapshotSubject
from exitbench.attacks.settings import KNOBS
from exitbench.models.errors import InvalidValue
from exitbench.models.field_types import Channels, Count, Grid, Line, Measured, Radius, SafeName
from exitbench.models.policy_text import parse_policy
from exitbench.scoring.ranking import WORST
from exitbench.store.identity import Norm
from exitbench.store.run_record import CLEAN

_EXITS = re.compile(r"(?:[1-9][0-9]{0,3}(?: [1-9][0-9]{0,3})*)?")

_FIELDS: Mapping[str, Any] = {
    "attacks": tuple[Line, ...],
    "dataset": SafeName,
    "n": Count,
    "norm": Norm,
    "eps": Radius | None,
    "grid": Grid,
    "mean": Channels,
    "std": Channels,
    **{name: {int: Count, float: Measured, str: Line}[knob.kind] | None for name, knob in KNOBS.items()},
}
"""Type of every setting that a baseline records."""


def check_snapshot(baseline: Snapshot) -> None:
    """Check that a baseline can be one of an evaluation.

    Raises:
        ValueError: it cannot; the message says what does not fit.
    """
    subject = baseline.subject
    parse_policy(subject.policy, subject.n_exits, subject.calibration)
    if subject.mmacs[0] <= 0 or any(later < earlier for earlier, later in pairwise(subject.mmacs)):
        raise ValueError(f"costs of exits are positive and do not fall, `mmacs` is {list(subject.mmacs[:8])}")
    _check_settings(baseline.settings, subject)
    _check_rows(baseline)


def exits_in(text: str) -> npt.NDArray[np.int64]:
    """Return the exits (0-based) that a baseline lists from 1.

    Raises:
        ValueError: it lists something else.
    """
    if not _EXITS.fullmatch(text):
        raise ValueError(f"exits that are no numbers: {text[:40]!a}")
    return np.array([int(number) - 1 for number in text.split()], dtype=np.int64)


def _check_settings(settings: Mapping[str, Any], subject: SnapshotSubject) -> None:
    for name, value in settings.items():
        if name not in _FIELDS:
            raise ValueError(f"unknown setting {name[:80]!a}")
        try:
            msgspec.convert(value, _FIELDS[name])
            if value is not None and name in KNOBS:
                KNOBS[name].check(name, value)
        except (msgspec.ValidationError, InvalidValue) as error:
            raise ValueError(f"setting {name}: {error}") from error
    for name in ("dataset", "n", "norm", "eps", "grid"):
        if settings.get(name) is not None and settings[name] != getattr(subject, name):
            raise ValueError(f"setting {name} is {settings[name]}, its subject has {getattr(subject, name)}")


def _check_rows(baseline: Snapshot) -> None:
    clean, worst = baseline.rows[CLEAN], baseline.rows[WORST]
    if worst.exits is not None:
        raise ValueError("exits of the worst case, which has no images of its own")
    for name, row in baseline.rows.items():
        if row.exits is None and name != WORST:
            raise ValueError(f"no exits of {name}")
        if (row.right & ~clean.right).any():
            raise ValueError(f"samples that are right under {name} and wrong when clean")

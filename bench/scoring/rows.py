"""An evaluation as rows of verdicts: clean, under each attack, and the worst case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exitbench.scoring.evaluation import Bools, Evaluation
from exitbench.scoring.ranking import WORST
from exitbench.store.run_record import CLEAN

TITLES = {CLEAN: "clean", WORST: "worst case"}
"""Titles of the two rows that are not attacks."""


@dataclass(frozen=True, eq=False)
class Row:
    """The verdicts on the n samples: clean, under one attack, or under all.

    Attributes:
        right: ``(n,)`` bool, whether the deployed rule is right on the clean image and on the attack's.
        exits: ``(n,)``, the exit taken (0-based); None for the worst case, which has no images of its own.
    """

    right: Bools
    exits: npt.NDArray[np.int64] | None


def rows_of(evaluation: Evaluation) -> dict[str, Row]:
    """Return the rows: clean, every finished attack (the first of each name), and the worst case."""
    rows = {CLEAN: Row(evaluation.clean.correct, evaluation.clean.exits)}
    for attack in evaluation.attacks:
        rows.setdefault(attack.name, Row(evaluation.robust(attack), attack.exits))
    return {**rows, WORST: Row(evaluation.worst, None)}

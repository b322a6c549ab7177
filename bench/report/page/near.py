"""The samples between both bounds on the page: what the nearest image lacked to break each."""

from __future__ import annotations

from dataclasses import dataclass

from exitbench.scoring.between import between_of
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.nearest import LACKED

MOST = 50
"""Samples that the page lists; Python's ``Evaluation.nearest`` has all."""


@dataclass(frozen=True)
class NearSample:
    """A sample that is neither broken nor certified.

    Attributes:
        sample: Its index.
        distance: What the nearest image lacks, in logits.
        exit: Where it is nearest, from 1.
        target: The wrong class there.
        lacked: What is lacking most.
        attack: Whose image it is.
    """

    sample: int
    distance: float
    exit: int
    target: int
    lacked: str
    attack: str


@dataclass(frozen=True)
class Near:
    """All of them.

    Attributes:
        words: In a sentence or two.
        samples: The nearest, at most ``MOST``.
        hidden: How many more there are.
    """

    words: str
    samples: tuple[NearSample, ...]
    hidden: int


def near(evaluation: Evaluation) -> Near | None:
    """Return what the nearest images lacked; None where nothing was attacked, or no sample is between the bounds."""
    found, between = evaluation.nearest, between_of(evaluation)
    if found is None or between is None or not between.samples:
        return None
    samples = tuple(
        NearSample(
            sample=i,
            distance=float(found.distance[i]),
            exit=int(found.exit[i]) + 1,
            target=int(found.target[i]),
            lacked=LACKED[found.lacked[i]],
            attack=str(found.attack[i]),
        )
        for i in between.samples[:MOST]
    )
    return Near(str(between), samples, max(0, len(between.samples) - MOST))

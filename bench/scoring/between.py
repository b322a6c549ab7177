"""The samples between both bounds, neither broken nor certified, and what the nearest stored image still lacks to break them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exitbench.scoring.evaluation import Bools, Evaluation
from exitbench.scoring.nearest import LACKED


@dataclass(frozen=True)
class Between:
    """The samples that are neither broken nor certified, together.

    Attributes:
        samples: Their indices, the nearest to failing first.
        median, least: Of their distances, in logits; NaN where there is none.
        lacked: How many lack each of ``LACKED`` most.
        exits: How many are nearest at each exit.
    """

    samples: tuple[int, ...]
    median: float
    least: float
    lacked: tuple[int, ...]
    exits: tuple[int, ...]

    def __str__(self) -> str:
        """The samples in a sentence or two."""
        if not self.samples:
            return "every sample is either broken or certified"
        parts = ", ".join(f"{count} {what}" for what, count in zip(LACKED, self.lacked, strict=True) if count)
        most = max(range(len(self.exits)), key=self.exits.__getitem__)
        if len(self.samples) == 1:
            return (
                "1 sample is neither broken nor certified. The nearest image to break it lacks "
                f"{self.least:.2g} logits, at exit {most + 1}. What is lacking: {parts.removeprefix('1 ')}"
            )
        return (
            f"{len(self.samples)} samples are neither broken nor certified. The nearest image to break each lacks "
            f"{self.median:.2g} logits in the median, {self.least:.2g} at the least. What is lacking: {parts}. "
            f"{self.exits[most]} are nearest at exit {most + 1}"
        )


def undecided(evaluation: Evaluation) -> Bools:
    """Return whether each sample is neither broken by a stored image nor certified, ``(n,)``."""
    found = evaluation.worst
    if evaluation.certificate is not None:
        found[list(evaluation.certificate.proven.right)] = False
    return found


def between_of(evaluation: Evaluation) -> Between | None:
    """Return what the nearest stored images lack to break the undecided samples; None where nothing was attacked."""
    nearest = evaluation.nearest
    if nearest is None or not evaluation.attacked:
        return None
    found = np.flatnonzero(undecided(evaluation) & np.isfinite(nearest.distance))
    found = found[np.argsort(nearest.distance[found], kind="stable")]
    distances = nearest.distance[found] if len(found) else np.array([np.nan])
    return Between(
        tuple(found.tolist()),
        float(np.median(distances)),
        float(distances[0]),
        tuple(np.bincount(nearest.lacked[found], minlength=len(LACKED)).tolist()),
        tuple(np.bincount(nearest.exit[found], minlength=evaluation.record.n_exits).tolist()),
    )

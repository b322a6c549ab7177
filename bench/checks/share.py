"""An exact test of whether more samples show a fault than chance explains, on the same looks as the tests of ``leads``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exitbench.checks.leads import LEVEL
from exitbench.stats.proportions import at_least

Verdict = Literal["no", "undecided", "yes"]

TOO_FEW = "these are too few to tell; evaluate more samples (--n)"
"""What to do where a test cannot decide."""


@dataclass(frozen=True)
class ShareTest:
    """A fault is found where it shows on a share of ``least`` and an exact binomial test tells that from a share of ``chance``.

    Attributes:
        least: Share from which on a fault matters.
        chance: Largest share that a faithful network has.
    """

    least: float
    chance: float

    def verdict(self, found: int, samples: int, looked: int = 1) -> Verdict:
        """Return whether the fault is there, if ``found`` of ``samples`` show it.

        A faithful network is told "yes" with a probability of at most ``LEVEL``, over all looks together.

        Args:
            found: Number of samples that show it.
            samples: Number of samples.
            looked: Number of times that the test may be made as the samples grow, which share the level.
        """
        if not found or found < self.least * samples:
            return "no"
        return "yes" if self.p(found, samples) < LEVEL / looked else "undecided"

    def p(self, found: int, samples: int) -> float:
        """Return the probability that so many of ``samples`` show it if each does with the probability ``chance``."""
        return at_least(found, samples, self.chance)

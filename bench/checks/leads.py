"""Exact tests of whether what needs no gradient breaks more than gradients do, on the same samples, while these grow."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from exitbench.stats.proportions import sign_test
from exitbench.store.cell import SLICE

LEVEL = 0.01
"""Probability, over all looks together, that a network whose gradients are as good as they should be fails one of these tests."""


def looks(n: int) -> list[int]:
    """Return the numbers of samples at which ``n`` samples are looked at: one slice, then twice as many, up to all."""
    sizes = [min(SLICE, n)]
    while sizes[-1] < n:
        sizes.append(min(2 * sizes[-1], n))
    return sizes


@dataclass(frozen=True)
class Pairs:
    """Which of the same samples two attacks break.

    Attributes:
        both: Number that both break.
        black: Number that only the one without gradients breaks.
        white: Number that only the one with gradients breaks.
    """

    both: int
    black: int
    white: int

    @classmethod
    def of(cls, black: AbstractSet[int], white: AbstractSet[int]) -> Pairs:
        """Count the pairs of two sets of broken samples."""
        return cls(len(black & white), len(black - white), len(white - black))

    def more(self) -> float:
        """Return the p-value of the one-sided exact McNemar test that gradients break at least as many."""
        return sign_test(self.black, self.white)

    def more_than(self, lead: float) -> float:
        """Return a p-value of the hypothesis that gradients break at least ``lead`` times as many, for ``lead`` in [1, 2].

        With probabilities p of the three kinds of pairs it says ``p_white >= (lead - 1) p_both + lead p_black``. So among all
        pairs the share of ``white`` is at least ``1 - 1 / lead``, and among the discordant ones ``lead / (1 + lead)``. Both are
        tested, each by its exact binomial tail, and the smaller p-value is doubled (Bonferroni).
        """
        some = self.both + self.black + self.white
        tails = (tail(self.white, some, 1 - 1 / lead), tail(self.white, self.black + self.white, lead / (1 + lead)))
        return min(1.0, 2 * min(tails))


def tail(successes: int, n: int, p: float) -> float:
    """Return the probability of at most ``successes`` in ``n`` independent trials of probability ``p``."""
    return min(1.0, math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes + 1)))

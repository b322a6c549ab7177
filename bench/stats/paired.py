"""Paired comparisons: the same samples before and after, or under two models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from exitbench.stats.proportions import sign_test, wilson

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

DRAWS = 10_000
"""Of the sign-flip test: no p below about 1 / DRAWS is told apart."""

_Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact McNemar test: how likely a split of the discordant pairs at least as uneven is, were both sides alike.

    Conditional on their number each discordant pair is a fair coin (McNemar, Psychometrika 1947; exact form e.g. Fagerland,
    Lydersen & Laake, BMC Med. Res. Methodol. 2013), so that this is twice the smaller binomial tail, at most 1. The one-sided
    test for a loss is ``sign_test(lost, won)``.

    Args:
        lost: samples right before and wrong after.
        won: samples wrong before and right after.

    Returns:
        A p-value in (0, 1].
    """
    return min(1.0, 2 * sign_test(max(lost, won), min(lost, won)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Statist. 1979): reject where the adjusted value is at most the level.

    Keeps the probability of any false rejection in the family at the level whatever the dependence, and never
    rejects less than Bonferroni's.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def newcombe(before: Bools, after: Bools) -> tuple[float, float]:
    """95 % score interval of the difference of two paired proportions, ``after`` minus ``before``.

    Method 10 of Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", Statist. Med. 17, 1998: Wilson's intervals of the two proportions, joined with their correlation. Good at 0 and
    1 and where few pairs are discordant.

    Args:
        before, after: ``(n,)`` verdicts on the same samples, in the same order; n at least 1.
    """
    n = len(before)
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    won, lost = int((~before & after).sum()), int((before & ~after).sum())
    p_after, p_before = (both + won) / n, (both + lost) / n
    low_after, high_after = wilson(both + won, n)
    low_before, high_before = wilson(both + lost, n)
    phi = _correlation(both, lost, won, neither)
    below, above = (
        _joined(p_after - low_after, high_before - p_before, phi),
        _joined(high_after - p_after, p_before - low_before, phi),
    )
    difference = (won - lost) / n
    return max(-1.0, difference - below), min(1.0, difference + above)


def _correlation(both: int, lost: int, won: int, neither: int) -> float:
    """Newcombe's phi: the table's correlation, a positive one corrected towards zero for continuity."""
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if margins == 0:
        return 0.0
    excess = both * neither - lost * won
    corrected = max(excess - (both + lost + won + neither) / 2, 0) if excess > 0 else excess
    return corrected / math.sqrt(margins)


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def mean_interval(differences: Floats) -> tuple[float, float]:
    """95 % interval of the mean of paired ``differences`` ``(n,)`` by the normal approximation; of no width for n = 1."""
    mean, n = float(differences.mean()), len(differences)
    half = _Z95 * float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return mean - half, mean + half


def sign_flip(differences: Floats, draws: int = DRAWS) -> float:
    """One-sided test that the mean of paired ``differences`` ``(n,)`` is above zero, by flipping their signs at random.

    Valid wherever before and after are exchangeable sample by sample, whatever the distribution (Fisher's randomisation
    test; the observed signs count as one draw, so that p is never 0). The draws are the same every time.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    observed = float(differences.sum())
    slack = 1e-9 * float(np.abs(differences).sum())  # sums of the same numbers in another order differ by rounding
    if observed <= slack:
        return 1.0
    generator = np.random.default_rng(0)
    sums = np.zeros(draws)
    for size, count in zip(sizes, counts, strict=True):  # exits cost few different sums: one binomial draw flips all of a size
        sums += size * (2.0 * generator.binomial(count, 0.5, draws) - count)
    return (1 + int((sums >= observed - slack).sum())) / (1 + draws)

"""Statistics of paired comparisons: the same samples before and after, or under two models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from exitbench.stats.proportions import sign_test, wilson

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

DRAWS = 10_000
"""Draws of the sign-flip test; p-values below about 1 / DRAWS cannot be resolved."""

_Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal


def mcnemar(lost: int, won: int) -> float:
    """Return the p-value of the two-sided exact McNemar test.

    Under the null hypothesis each discordant pair is a fair coin (McNemar, Psychometrika 1947; exact form e.g. Fagerland,
    Lydersen & Laake, BMC Med. Res. Methodol. 2013), so that the p-value is twice the smaller binomial tail, at most 1. The
    one-sided test for a loss is ``sign_test(lost, won)``.

    Args:
        lost: Number of samples right before and wrong after.
        won: Number of samples wrong before and right after.

    Returns:
        A p-value in (0, 1].
    """
    return min(1.0, 2 * sign_test(max(lost, won), min(lost, won)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method (Scand. J. Statist. 1979); reject where the result is at most the level.

    The method controls the family-wise error rate under any dependence, and rejects at least what Bonferroni's does.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def newcombe(before: Bools, after: Bools) -> tuple[float, float]:
    """Return the 95 % score interval of the difference of two paired proportions, ``after`` minus ``before``.

    This is method 10 of Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statist. Med. 17, 1998: Wilson's intervals of the two proportions, combined with their correlation. It is
    accurate at 0 and 1 and where few pairs are discordant.

    Args:
        before, after: Verdicts ``(n,)`` on the same samples, in the same order; n is at least 1.
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
    """Return Newcombe's phi: the correlation of the 2x2 table; a positive one is corrected for continuity, towards zero."""
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if margins == 0:
        return 0.0
    excess = both * neither - lost * won
    corrected = max(excess - (both + lost + won + neither) / 2, 0) if excess > 0 else excess
    return corrected / math.sqrt(margins)


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def mean_interval(differences: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the mean of ``differences`` ``(n,)`` by the normal approximation; its width is 0 for n = 1."""
    mean, n = float(differences.mean()), len(differences)
    half = _Z95 * float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return mean - half, mean + half


def sign_flip(differences: Floats, draws: int = DRAWS) -> float:
    """Return the one-sided p-value that the mean of paired ``differences`` ``(n,)`` is above zero, by flipping signs at random.

    The test is valid if before and after are exchangeable sample by sample, whatever the distribution (Fisher's randomisation
    test; the observed signs count as one draw, so that p is never 0). The draws are the same every time.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    observed = float(differences.sum())
    slack = 1e-9 * float(np.abs(differences).sum())  # sums of the same numbers in another order differ by rounding
    if observed <= slack:
        return 1.0
    generator = np.random.default_rng(0)
    sums = np.zeros(draws)
    for size, count in zip(sizes, counts, strict=True):  # there are few sizes: one draw flips all signs of a size
        sums += size * (2.0 * generator.binomial(count, 0.5, draws) - count)
    return (1 + int((sums >= observed - slack).sum())) / (1 + draws)

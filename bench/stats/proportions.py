"""Confidence intervals and tests of proportions."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a proportion (Wilson, JASA 1927), valid at 0, at n, and for small n.

    Raises:
        ValueError: Unless ``0 <= successes <= n`` and ``n >= 1``.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"no interval for {successes} of {n}")
    p = successes / n
    z2 = _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    # At the ends the formula is exact in mathematics and off by one rounding in floats.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def sign_test(more: int, fewer: int) -> float:
    """Return the probability that a fair coin gives at least ``more`` heads in ``more + fewer`` throws; 1 without throws.

    It is computed exactly in integers and rounded once; a result that underflows is the smallest positive float.
    """
    n = more + fewer
    ways = term = 1  # number of outcomes with at most ``fewer`` tails, summed from 0 tails up
    for tails in range(1, fewer + 1):
        term = term * (n - tails + 1) // tails
        ways += term
    return max(ways / (1 << n), math.ulp(0.0))


def at_least(successes: int, n: int, p: float) -> float:
    """Return the probability of at least ``successes`` in ``n`` independent draws that each succeed with probability ``p``."""
    if not 0 < p < 1:
        return 1.0 if successes == 0 or p >= 1 else 0.0
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(successes, n + 1)
    )
    return min(1.0, math.fsum(math.exp(log) for log in logs))

"""The effect of an attack on the savings of early exits, from the exits taken and the cost of each exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Exits = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Slowed:
    """The slowdown of attacked inputs compared with clean ones.

    Attributes:
        ratio: Mean cost of attacked inputs over that of clean inputs.
        savings_erased: Share of the clean savings that the attack erases,
            ``(E[c_adv] - E[c_clean]) / (c_K - E[c_clean])``: 1 if every input goes to the last exit, negative if attacked
            inputs are cheaper. None if clean inputs save nothing, as with one exit or exits of the same cost.
        efficacy: See ``efficacy``, for the attacked inputs; None with one exit.
    """

    ratio: float
    savings_erased: float | None
    efficacy: float | None


def slowed(clean: Exits, attacked: Exits, costs: Sequence[float]) -> Slowed:
    """Compare the exits ``(n,)`` (0-based) that clean and attacked inputs take, at ``costs`` per exit.

    Raises:
        ValueError: If there are no samples, or costs are not positive or fall.
    """
    _check(clean, costs)
    before, after = _mean(clean, costs), _mean(attacked, costs)
    # Compared by exit, not by mean: a mean of equal costs may differ from that cost in the last bit.
    saves = any(costs[k] < costs[-1] for k in set(clean.tolist()))
    return Slowed(
        ratio=after / before,
        savings_erased=(after - before) / (costs[-1] - before) if saves else None,
        efficacy=efficacy(attacked, costs) if len(costs) > 1 else None,
    )


def efficacy(exits: Exits, costs: Sequence[float]) -> float:
    """Return the efficacy of early exits (Hong, Kaya, Modoranu & Dumitras, DeepSloth, ICLR 2021).

    It is the area under the share of inputs that have left, as a function of the share of the network's cost: straight lines
    from (0, 0) through ``(c_k / c_K, share that left by exit k)``, as in the paper's released code. Close to 1 where all
    inputs leave at once (exactly ``1 - c_1 / 2 c_K``), close to 0 where all go to the last exit (exactly
    ``(1 - c_{K-1} / c_K) / 2``).

    Args:
        exits: Exits taken ``(n,)``, 0-based.
        costs: Cost of each exit.

    Raises:
        ValueError: If there are no samples, or costs are not positive or fall.
    """
    _check(exits, costs)
    left = np.array([0, *np.cumsum(np.bincount(exits, minlength=len(costs)))]) / len(exits)
    at = np.array([0.0, *costs]) / costs[-1]
    return float((np.diff(at) * (left[1:] + left[:-1]) / 2).sum())


def _mean(exits: Exits, costs: Sequence[float]) -> float:
    return float(np.asarray(costs, dtype=np.float64)[exits].mean())


def _check(exits: Exits, costs: Sequence[float]) -> None:
    if not len(exits):
        raise ValueError("figures of slowdown need samples, there are none")
    if not len(costs) or costs[0] <= 0 or any(later < earlier for earlier, later in pairwise(costs)):
        raise ValueError(f"costs per exit must be positive and must not fall, got {list(costs)}")

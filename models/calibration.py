"""Fits exit thresholds on held-out training data: to equal shares per exit, or to a target mean cost.

Equal shares are those of "Triple Wins" (ICLR 2020), section 4.1, which fits them on test data; here that never happens.
A target cost is the budgeted setting of MSDNet (Huang et al., ICLR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from exitbench.models.errors import InvalidValue
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, Policy, confidence, entropy

Kind = Literal["entropy", "confidence"]


def equal_share(logits: Tensor, kind: Kind = "entropy", calibration: str | None = None) -> Policy:
    """Return the policy under which every exit takes the same share of the calibration samples.

    The thresholds are sequential quantiles: exit k of K takes ``1 / (K - k + 1)`` of the samples that are left.

    Args:
        logits: Logits ``(K, N, classes)`` of the calibration samples.
        kind: The uncertainty that is compared with the thresholds.
        calibration: Digest to record in the policy.
    """
    n_exits = len(logits)
    shares = [1 / (n_exits - k) for k in range(n_exits - 1)]
    return _policy(_sequential_thresholds(logits, shares, kind), kind, calibration)


def target_cost(
    logits: Tensor, mmacs: Sequence[float], target: float, kind: Kind = "entropy", calibration: str | None = None
) -> Policy:
    """Return the policy whose mean cost on the calibration samples is closest to ``target``.

    Every gate lets the same share of the samples that are left leave; the share is found by bisection.

    Args:
        logits: Logits ``(K, N, classes)`` of the calibration samples.
        mmacs: Cost of each exit, in 10^6 multiply-accumulates.
        target: Mean cost to reach, in the unit of ``mmacs``.
        kind: The uncertainty that is compared with the thresholds.
        calibration: Digest to record in the policy.

    Raises:
        InvalidValue: If ``target`` is below the cost of the first exit or above that of the last.
    """
    if not mmacs[0] <= target <= mmacs[-1]:
        raise InvalidValue(f"a mean cost of {target:g} is out of reach: the exits cost {mmacs[0]:.2f} to {mmacs[-1]:.2f} mmacs")
    costs = torch.tensor(mmacs, dtype=torch.float64)

    def at(share: float) -> tuple[Policy, float]:
        policy = _policy(_sequential_thresholds(logits, [share] * (len(logits) - 1), kind), kind, calibration)
        return policy, float(costs[policy(logits)].mean())

    low, high = 0.0, 1.0  # a larger share leaves earlier and costs less
    best, best_cost = min((at(low), at(high)), key=lambda found: abs(found[1] - target))
    for _ in range(30):
        middle = (low + high) / 2
        policy, cost = at(middle)
        if abs(cost - target) < abs(best_cost - target):
            best, best_cost = policy, cost
        low, high = (middle, high) if cost > target else (low, middle)
    return best


def _sequential_thresholds(logits: Tensor, shares: Sequence[float], kind: Kind) -> list[float]:
    """Return one threshold per gate, such that gate k lets ``shares[k]`` of the samples that are left leave."""
    waiting = torch.ones(logits.shape[1], dtype=torch.bool)
    thresholds = []
    for logits_k, share in zip(logits, shares, strict=False):
        uncertainty = entropy(logits_k) if kind == "entropy" else -confidence(logits_k)
        threshold = _cut(uncertainty[waiting], share)
        waiting &= ~(uncertainty < threshold)
        thresholds.append(threshold)
    return thresholds


def _cut(values: Tensor, share: float) -> float:
    """Return the number that has ``share`` of ``values`` below it, half-way between its neighbours."""
    ordered = values.double().sort().values
    below = round(share * len(ordered))
    if below == 0:
        return -torch.inf
    if below == len(ordered):
        return torch.inf
    return float((ordered[below - 1] + ordered[below]) / 2)


def _policy(thresholds: list[float], kind: Kind, calibration: str | None) -> Policy:
    if kind == "entropy":
        return EntropyPolicy(tuple(thresholds), calibration)
    return ConfidencePolicy(tuple(-t for t in thresholds), calibration)

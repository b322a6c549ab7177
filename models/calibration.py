"""Sets exit rules on held-out training data: to equal shares per exit, to a mean cost, or to an accuracy.

Equal shares are those of "Triple Wins" (ICLR 2020), section 4.1, which fits them on test data; here that never happens.
A target cost is the budgeted setting of MSDNet (Huang et al., ICLR 2018). A bound on the accuracy that early exits lose is in
``exitbench.models.risk``.

Rules with thresholds form a family with one parameter: the share of the samples still in that every gate lets leave. Of other
rules the members are tried one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from exitbench.models.errors import InvalidValue
from exitbench.models.policies import FixedExit, Policy, Thresholds, deployed_logits
from exitbench.models.rules.registry import calibrated_kinds

Family = Callable[[float], Policy]
"""Maps a share in [0, 1] of the samples still in to the rule whose every gate lets that share leave."""


def kind_named(name: str) -> type[Policy]:
    """Return the class of a rule that can be calibrated.

    Raises:
        InvalidValue: If there is no such rule; the message lists them.
    """
    kinds = calibrated_kinds()
    if name not in kinds:
        raise InvalidValue(f"rule {name!r} cannot be calibrated; those that can: {', '.join(kinds)}")
    return kinds[name]


def equal_share(logits: Tensor, kind: str = "entropy", calibration: str | None = None) -> Policy:
    """Return the policy under which every exit takes the same share of the calibration samples.

    The thresholds are sequential quantiles: exit k of K takes ``1 / (K - k + 1)`` of the samples that are left. Of a rule without
    thresholds it is the member whose largest difference from an equal share is smallest.

    Args:
        logits: Logits ``(K, N, classes)`` of the calibration samples.
        kind: Name of the rule.
        calibration: Digest to record in the policy.

    Raises:
        InvalidValue: If no rule of this name can be calibrated.
    """
    rule, n_exits = kind_named(kind), len(logits)
    if issubclass(rule, Thresholds):
        shares = [1 / (n_exits - k) for k in range(n_exits - 1)]
        return rule.of_cuts(_sequential_cuts(_uncertainties(logits, rule), shares), calibration)

    def unevenness(policy: Policy) -> float:
        taken = torch.bincount(policy(logits), minlength=n_exits) / logits.shape[1]
        return float((taken - 1 / n_exits).abs().max())

    return min(_members(rule, n_exits, calibration), key=unevenness)


def target_cost(
    logits: Tensor, mmacs: Sequence[float], target: float, kind: str = "entropy", calibration: str | None = None
) -> Policy:
    """Return the policy whose mean cost on the calibration samples is closest to ``target``.

    Every gate lets the same share of the samples that are left leave; the share is found by bisection. Of a rule without
    thresholds all members are tried.

    Args:
        logits: Logits ``(K, N, classes)`` of the calibration samples.
        mmacs: Cost of each exit, in 10^6 multiply-accumulates.
        target: Mean cost to reach, in the unit of ``mmacs``.
        kind: Name of the rule.
        calibration: Digest to record in the policy.

    Raises:
        InvalidValue: If ``target`` is below the cost of the first exit or above that of the last, or no rule of this name can be
            calibrated.
    """
    if not mmacs[0] <= target <= mmacs[-1]:
        raise InvalidValue(f"a mean cost of {target:g} is out of reach: the exits cost {mmacs[0]:.4g} to {mmacs[-1]:.4g} mmacs")
    costs = torch.tensor(mmacs, dtype=torch.float64)
    rule = kind_named(kind)

    def cost_of(policy: Policy) -> float:
        return float(costs[policy(logits)].mean())

    if not issubclass(rule, Thresholds):
        return min(_members(rule, len(logits), calibration), key=lambda policy: abs(cost_of(policy) - target))
    family = family_of(logits, kind, calibration)

    def at(share: float) -> tuple[Policy, float]:
        policy = family(share)
        return policy, cost_of(policy)

    low, high = 0.0, 1.0  # a larger share leaves earlier and costs less
    best, best_cost = min((at(low), at(high)), key=lambda found: abs(found[1] - target))
    for _ in range(30):
        middle = (low + high) / 2
        policy, cost = at(middle)
        if abs(cost - target) < abs(best_cost - target):
            best, best_cost = policy, cost
        low, high = (middle, high) if cost > target else (low, middle)
    return best


def target_accuracy(
    logits: Tensor,
    labels: Tensor,
    mmacs: Sequence[float],
    target: float,
    kind: str = "entropy",
    calibration: str | None = None,
) -> Policy:
    """Return the cheapest policy whose accuracy on the calibration samples is at least ``target``.

    It says nothing of other samples; ``exitbench.models.risk`` does.

    Args:
        logits: Logits ``(K, N, classes)`` of the calibration samples.
        labels: Labels ``(N,)``.
        mmacs: Cost of each exit, in 10^6 multiply-accumulates.
        target: Accuracy in [0, 1].
        kind: Name of the rule.
        calibration: Digest to record in the policy.

    Raises:
        InvalidValue: If no policy of the family is as accurate; the message says how accurate the best is.
    """
    costs = torch.tensor(mmacs, dtype=torch.float64)
    found: list[tuple[float, int, Policy]] = []
    best = 0.0
    for i, policy in enumerate(candidates(logits, kind, calibration)):
        predicted, taken = deployed_logits(logits, policy)
        accuracy = float((predicted.argmax(-1) == labels).double().mean())
        best = max(best, accuracy)
        if accuracy >= target:
            found.append((float(costs[taken].mean()), i, policy))
    if not found:
        raise InvalidValue(
            f"an accuracy of {100 * target:g} % is out of reach: on the calibration images, the best {kind} rule has "
            f"{100 * best:.4g} %"
        )
    return min(found)[2]


def candidates(logits: Tensor, kind: str, calibration: str | None = None, n: int = 201) -> Iterable[Policy]:
    """Return the rules of a kind that calibration chooses from, from those that leave last to those that leave first.

    Args:
        logits: Logits ``(K, N, classes)`` of the calibration samples.
        kind: Name of the rule.
        calibration: Digest to record in the policies.
        n: Number of shares, evenly spaced in [0, 1], that the gates of a rule with thresholds are set to.
    """
    rule = kind_named(kind)
    if not issubclass(rule, Thresholds):
        return reversed(_members(rule, len(logits), calibration))
    family = family_of(logits, kind, calibration)
    return (family(i / (n - 1)) for i in range(n))


def family_of(logits: Tensor, kind: str, calibration: str | None = None) -> Family:
    """Return the family of a rule with thresholds, which are set on these logits ``(K, N, classes)``."""
    rule = kind_named(kind)
    if not issubclass(rule, Thresholds):
        raise InvalidValue(f"rule {kind!r} has no thresholds")
    uncertainties = _uncertainties(logits, rule)
    return lambda share: rule.of_cuts(_sequential_cuts(uncertainties, [share] * len(uncertainties)), calibration)


def _members(rule: type[Policy], n_exits: int, calibration: str | None) -> Sequence[Policy]:
    return rule.members(n_exits, calibration) or [FixedExit(n_exits)]


def _uncertainties(logits: Tensor, rule: type[Thresholds]) -> list[Tensor]:
    """Return what each gate compares with its threshold, ``(N,)``, from logits ``(K, N, classes)``."""
    return [rule.uncertainty(logits[: k + 1]) for k in range(len(logits) - 1)]


def _sequential_cuts(uncertainties: Sequence[Tensor], shares: Sequence[float]) -> list[float]:
    """Return one number per gate, such that gate k lets ``shares[k]`` of the samples that are left leave."""
    cuts = []
    waiting = torch.ones(len(uncertainties[0]) if uncertainties else 0, dtype=torch.bool)
    for uncertainty, share in zip(uncertainties, shares, strict=True):
        cut = _cut(uncertainty[waiting], share)
        waiting &= ~(uncertainty < cut)
        cuts.append(cut)
    return cuts


def _cut(values: Tensor, share: float) -> float:
    """Return the number that has ``share`` of ``values`` below it, half-way between its neighbours."""
    ordered = values.double().sort().values
    below = round(share * len(ordered))
    if below == 0:
        return -torch.inf
    if below == len(ordered):
        return torch.inf
    return float((ordered[below - 1] + ordered[below]) / 2)

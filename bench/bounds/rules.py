"""What is certain of a deployed rule: that it is right for all images of a ball, and the last exit that any of them reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.bounds import gates
from exitbench.bounds.gates import ExitBounds
from exitbench.bounds.interval import UNIT
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, Policy, Thresholds
from exitbench.models.rules.ensemble import EnsemblePolicy, VotePolicy
from exitbench.models.rules.margin import MarginPolicy
from exitbench.models.rules.patience import PatiencePolicy
from exitbench.models.rules.temperature import Tempered

Facts = tuple[Tensor, Tensor]
"""Of the gate of an exit, for each ball: whether it is open for all images, and whether no image leaves there wrongly."""


@dataclass(frozen=True)
class Certain:
    """What is certain of each ball.

    Attributes:
        right: Whether the deployed prediction is right for all images, ``(B,)``.
        last: The last exit that an image may take, 0-based, ``(B,)``.
    """

    right: Tensor
    last: Tensor


def certain(policy: Policy, exits: Sequence[ExitBounds]) -> Certain:
    """Return what bounds of all exits prove of the deployed rule.

    Exit k may be reached unless an earlier gate is open for the whole ball. A ball is certified if at each exit that may be
    reached, no image is wrong and its gate open; at the last exit, which has no gate, none is wrong.

    Of a rule whose gates are not understood, any exit may be taken: a ball is certified if all exits are right for all of it.

    Args:
        policy: The rule.
        exits: Bounds of each exit, in order.
    """
    if isinstance(policy, Tempered):
        return certain(policy.rule, [each.at(t) for each, t in zip(exits, policy.temperatures, strict=True)])
    last = torch.full_like(exits[0].labels, len(exits) - 1)
    facts = _KNOWN.get(type(policy))
    if facts is None:
        return Certain(_all_right(policy, exits), last)
    reached = torch.ones_like(last, dtype=torch.bool)
    right = torch.ones_like(reached)
    for k in range(len(exits) - 1):
        open_, safe = facts(policy, exits[: k + 1])
        right &= ~reached | safe
        last = torch.where(reached & open_, k, last)
        reached &= ~open_
    return Certain(right & (~reached | (exits[-1].margin > 0)), last)


def understood(policy: Policy) -> bool:
    """Return whether the gates of a rule have bounds, so that it can be certified where some exit is wrong."""
    rule = policy.rule if isinstance(policy, Tempered) else policy
    return type(rule) in _KNOWN


def _all_right(policy: Policy, exits: Sequence[ExitBounds]) -> Tensor:
    """Return whether every exit is right; of a rule that predicts something else than its exits do, nothing is certain.

    An arithmetic or geometric mean of probabilities that all prefer the label prefers it as well, by at least the smallest of
    their logarithmic leads; fp32 computes these logarithms with errors below ``8 u (magnitude + C)``.
    """
    slack = torch.zeros_like(exits[0].margin)
    if type(policy) in (VotePolicy, EnsemblePolicy):
        slack = 64 * UNIT * (torch.stack([each.magnitude for each in exits]).amax(0) + exits[0].n_classes + 8)
    elif type(policy).predicted is not Policy.predicted:
        slack = torch.full_like(slack, torch.inf)
    return (torch.stack([each.margin for each in exits]) > slack).all(0)


def _threshold(policy: Thresholds, seen: Sequence[ExitBounds]) -> tuple[float, float]:
    """Return a gate's threshold, rounded down and up by more than fp32 does."""
    threshold = policy.thresholds[len(seen) - 1]
    rounded = 2 * UNIT * abs(threshold) if abs(threshold) < float("inf") else 0.0
    return threshold - rounded, threshold + rounded


def _entropy(policy: EntropyPolicy, seen: Sequence[ExitBounds]) -> Facts:
    (low, high), error = _threshold(policy, seen), gates.entropy_error(seen[-1].n_classes)
    shut = gates.least_wrong_entropy(seen[-1]) - error > high
    return gates.greatest_entropy(seen[-1]) + error < low, shut | (seen[-1].margin > 0)


def _confidence(policy: ConfidencePolicy, seen: Sequence[ExitBounds]) -> Facts:
    (low, high), error = _threshold(policy, seen), gates.softmax_error(seen[-1].n_classes)
    confidence = gates.greatest_wrong_confidence(seen[-1]) + error
    return gates.least_confidence(seen[-1]) - error > high, (confidence < low) | (seen[-1].margin > 0)


def _margin(policy: MarginPolicy, seen: Sequence[ExitBounds]) -> Facts:
    (low, high), error = _threshold(policy, seen), 3 * gates.softmax_error(seen[-1].n_classes)
    margin = gates.greatest_wrong_margin(seen[-1]) + error
    return gates.least_margin(seen[-1]) - error > high, (margin < low) | (seen[-1].margin > 0)


def _fixed(policy: FixedExit, seen: Sequence[ExitBounds]) -> Facts:
    taken = torch.full_like(seen[-1].labels, len(seen) == policy.exit, dtype=torch.bool)
    return taken, ~taken | (seen[-1].margin > 0)


def _patience(policy: PatiencePolicy, seen: Sequence[ExitBounds]) -> Facts:
    if len(seen) < policy.n:
        shut = torch.zeros_like(seen[-1].labels, dtype=torch.bool)
        return shut, ~shut
    heads = seen[-policy.n :]
    return gates.all_lead(heads), ~gates.some_wrong_class_may_lead(heads)


_KNOWN: dict[type[Policy], Callable[..., Facts]] = {
    EntropyPolicy: _entropy,
    ConfidencePolicy: _confidence,
    MarginPolicy: _margin,
    FixedExit: _fixed,
    PatiencePolicy: _patience,
}

"""Losses of the slowdown attack, per sample: shut gates, expected cost, and the constraint on the prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import soft_exits
from exitbench.attacks.objectives import Margin
from exitbench.models.at_once import at_once
from exitbench.models.policies import Policy, predictions
from exitbench.models.within_reach import exits_within_reach

SATURATED = 0.8
"""Slack above which the gradient of a gate counts as vanished."""
LIMIT = 0.05
"""Margin beyond which a prediction contributes no gradient; small, as gates of high entropy leave only small margins."""


def gate_slacks(logits: Tensor, policy: Policy) -> Tensor:
    """Return the slack of every gate, relative to its threshold, ``(K - 1, B)``; the last exit has no gate."""
    return at_once(policy).slack(logits)


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Return the cross-entropy ``(...)`` between the uniform distribution and the softmax of ``logits`` ``(..., C)``.

    Its gradient, ``p - 1/C``, is largest where the softmax is saturated and that of the entropy vanishes (the loss of DeepSloth,
    Hong et al., ICLR 2021).
    """
    return logits.logsumexp(-1) - logits.mean(-1)


def saved_shares(policy: Policy, shares: Tensor) -> Tensor:
    """Return the cost ``(K - 1,)`` that leaving at each gate saves over the costliest exit within reach, from shares ``(K,)``."""
    within_reach = exits_within_reach(policy, len(shares))
    reached = torch.zeros_like(shares[:-1])
    reached[within_reach[:-1]] = 1.0
    return reached * (shares[within_reach[-1]] - shares[:-1])


def shut_gates(logits: Tensor, policy: Policy, saved: Tensor) -> Tensor:
    """Return minus the amount by which the gates are open, ``(B,)``.

    Each gate is weighted by the cost that leaving there saves (``saved_shares``). A saturated gate contributes
    its cross-entropy to the uniform distribution, any other its slack. A shut gate contributes nothing: a threshold near the
    largest possible entropy leaves no room to shut it further, and its gradient would keep the others open.

    Args:
        logits: Logits ``(K, B, C)``.
        policy: The deployed rule.
        saved: Weights ``(K - 1,)`` of the gates.
    """
    slacks = gate_slacks(logits, policy)
    open_by = slacks.relu()
    if policy.saturates:
        open_by = torch.where(slacks.detach() > SATURATED, uniform_cross_entropy(predictions(logits, policy)[:-1]), open_by)
    return -(saved[:, None] * open_by).sum(0)


def expected_cost(logits: Tensor, policy: Policy, shares: Tensor, temperature: float) -> Tensor:
    """Return the expected cost ``(B,)`` under soft gates, in the unit of ``shares`` ``(K,)``."""
    return (soft_exits(gate_slacks(logits, policy), temperature) * shares[:, None]).sum(0)


def prediction_held(logits: Tensor, label: Tensor, policy: Policy, *, to_label: bool, temperature: float) -> Tensor:
    """Return how well the deployed prediction is held at ``label``, or off it, ``(B,)``; margins are capped at ``LIMIT``.

    The margin is weighted half at the exit taken and half at the exits that soft gates expect. These weights have no gradient:
    this term moves the margin, the cost term moves the gates.
    """
    margins = Margin()(predictions(logits, policy), label)
    bounded = torch.tanh(-margins if to_label else margins)
    bounded = torch.minimum(bounded, torch.full_like(bounded, LIMIT))
    expected = soft_exits(gate_slacks(logits, policy), temperature).detach()
    taken = torch.zeros_like(expected).scatter_(0, policy(logits)[None], 1.0)
    return ((expected + taken) / 2 * bounded).sum(0)

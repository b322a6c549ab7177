"""What a slowdown attack ascends: shut gates, expected cost, and the constraint on the prediction. All per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import soft_exits
from exitbench.attacks.objectives import Margin
from exitbench.models.policies import Policy, exits_within_reach

SATURATED = 0.8
"""Slack above which a gate's own gradient is taken to have vanished."""
LIMIT = 0.05
"""Margin at which a prediction is safe enough to stop pulling; small, as gates of high entropy leave small margins only."""


def gate_slacks(logits: Tensor, policy: Policy) -> Tensor:
    """Slack of every gate but the last exit's, which has none, relative to its threshold: ``(K - 1, B)``."""
    slacks = [policy.slack(logits_k, k) for k, logits_k in enumerate(logits[:-1])]
    return torch.stack(slacks) if slacks else logits.new_empty((0, logits.shape[1]))


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy ``(...)`` between the uniform distribution and the softmax of ``logits`` ``(..., C)``.

    Its gradient, ``p - 1/C``, is largest where the softmax is saturated and that of the entropy is nothing
    (the loss of DeepSloth, Hong et al., ICLR 2021).
    """
    return logits.logsumexp(-1) - logits.mean(-1)


def shut_gates(logits: Tensor, policy: Policy, shares: Tensor) -> Tensor:
    """How far the gates are from shut, negated ``(B,)``.

    A gate counts by the cost that leaving there saves over the dearest exit within reach.
    A saturated gate pulls by the cross-entropy to the uniform
    distribution, another by its slack; one that is shut does not pull at all, as a threshold near the largest possible
    entropy leaves no room to shut it any further, and its pull would hold the others open.

    Args:
        logits: ``(K, B, C)``.
        policy: the deployed rule.
        shares: cost of each exit over that of the last, ``(K,)``.
    """
    slacks = gate_slacks(logits, policy)
    open_by = torch.where(slacks.detach() > SATURATED, uniform_cross_entropy(logits[:-1]), slacks.relu())
    within_reach = exits_within_reach(policy, len(logits))
    saved = torch.zeros_like(shares[:-1])
    for k in within_reach[:-1]:
        saved[k] = shares[within_reach[-1]] - shares[k]
    return -(saved[:, None] * open_by).sum(0)


def expected_cost(logits: Tensor, policy: Policy, shares: Tensor, temperature: float) -> Tensor:
    """Expected ``shares`` ``(K,)`` of the exit taken, ``(B,)``, under soft gates."""
    return (soft_exits(gate_slacks(logits, policy), temperature) * shares[:, None]).sum(0)


def prediction_held(logits: Tensor, label: Tensor, policy: Policy, *, to_label: bool, temperature: float) -> Tensor:
    """How well the deployed prediction is held to ``label``, or off it, ``(B,)``; satisfied margins stop pulling.

    The margin counts half at the exit taken and half at the exits that soft gates expect, whose weights are held fixed:
    moving the margin is this term's business, moving the gates the other's.
    """
    margins = Margin()(logits, label)
    bounded = torch.tanh(-margins if to_label else margins)
    bounded = torch.minimum(bounded, torch.full_like(bounded, LIMIT))
    expected = soft_exits(gate_slacks(logits, policy), temperature).detach()
    taken = torch.zeros_like(expected).scatter_(0, policy(logits)[None], 1.0)
    return ((expected + taken) / 2 * bounded).sum(0)

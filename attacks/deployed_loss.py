"""What an attack on the deployed rule ascends, and how far it still is, in one unit: logits.

Breaking a sample at exit k needs a wrong class on top there, its gate open, and the gates before it shut. Each of these
is a number that must be positive (``exit_constraints``): the margin between logits, and a gate's slack in log units, the log of
the threshold over the entropy. Log units matter where softmax is saturated: the gradient of an entropy vanishes there,
that of its logarithm does not, so that needs on a confident exit pull as hard as any (there it does what the
cross-entropy to the uniform distribution does, but towards the classes nearest to the top one).

Everything is per sample.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.attacks.objectives import Margin
from exitbench.models.policies import Policy

ALWAYS_SATISFIED = 1e4
"""Stands for a need that nothing can violate; finite, so that sums and gradients stay finite."""

SLACK_CAP, MARGIN_CAP = 0.3, 0.9
"""Log units by which a gate's need is met, and logits by which the class's is, when it stops pulling."""


def exit_constraints(logits: Tensor, y: Tensor, policy: Policy, n_exits: int, target: Tensor | None = None) -> Tensor:
    """What breaking each sample at each exit needs to be positive.

    Args:
        logits: ``(K', B, C)``, of the first K' exits.
        y: labels ``(B,)``.
        policy: the deployed rule.
        n_exits: K, of the whole network; the last exit has no gate.
        target: the wrong class wanted ``(B,)``; None for whichever is nearest.

    Returns:
        ``(K' + 1, K', B)``: row j < K' is the need on gate j, the last row the one on the class, for each exit.
    """
    always = torch.full_like(logits[0, :, 0], ALWAYS_SATISFIED)
    slacks = torch.stack([policy.log_slack(z, k) if k < n_exits - 1 else always for k, z in enumerate(logits)])
    gate = torch.arange(len(logits), device=y.device)[:, None, None]
    exit_ = gate.movedim(0, 1)
    wanted = torch.where(gate == exit_, slacks[:, None], -slacks[:, None])
    gates = torch.where(gate <= exit_, wanted, torch.full_like(wanted, ALWAYS_SATISFIED))
    return torch.cat([gates, margins(logits, y, target)[None]])


def margins(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """By how much the target class, or the best wrong one, exceeds the label: ``(K, B)``."""
    if target is None:
        return Margin()(logits, y)
    wanted, label = (logits.gather(-1, classes.expand(len(logits), -1).unsqueeze(-1))[..., 0] for classes in (target, y))
    return wanted - label


def distance_to_failure(logits: Tensor, y: Tensor, policy: Policy) -> Tensor:
    """For each exit ``(K, B)``, the worst violation of what breaking the sample there needs; negative where it is broken."""
    return -exit_constraints(logits, y, policy, len(logits)).amin(0)


def exit_probabilities(logits: Tensor, policy: Policy, temperature: float) -> Tensor:
    """Probability ``(K, B)`` of taking each exit when gate k opens with probability ``sigmoid(log_slack_k / temperature)``."""
    slacks = [policy.log_slack(logits_k, k) for k, logits_k in enumerate(logits[:-1])]
    return soft_exits(torch.stack(slacks) if slacks else logits.new_empty((0, logits.shape[1])), temperature)


def soft_exits(slacks: Tensor, temperature: float) -> Tensor:
    """Probability ``(K, B)`` of taking each exit when gate k opens with probability ``sigmoid(slacks[k] / temperature)``.

    Args:
        slacks: ``(K - 1, B)``; the last exit has no gate.
    """
    gates = slacks / temperature
    certain = slacks.new_zeros((1, slacks.shape[1]))
    reached = torch.cat([certain, F.logsigmoid(-gates).cumsum(0)])
    return (reached + torch.cat([F.logsigmoid(gates), certain])).exp()


def expected_failure(logits: Tensor, y: Tensor, policy: Policy, temperature: float) -> Tensor:
    """``-log`` of the expected probability ``(B,)`` that the soft deployed rule gives to the label."""
    true = logits.softmax(-1)[:, torch.arange(len(y), device=y.device), y]
    return -torch.log((exit_probabilities(logits, policy, temperature) * true).sum(0) + 1e-12)


def expected_margin(logits: Tensor, y: Tensor, policy: Policy, temperature: float) -> Tensor:
    """Expected bounded margin ``(B,)`` of the soft deployed rule: ``tanh`` keeps exits that are wrong already from dominating."""
    return (exit_probabilities(logits, policy, temperature) * torch.tanh(margins(logits, y))).sum(0)


def joint(needed: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum ``(B,)`` of needs ``(J, B)``, the last one that on the class; a need met with some slack stops pulling."""
    enough = torch.full_like(needed, SLACK_CAP)
    enough[-1] = MARGIN_CAP
    return (weights * torch.minimum(needed, enough)).sum(0)


def reweighted(weights: Tensor, needed: Tensor) -> Tensor:
    """Weights ``(J, B)`` after a step: those of violated needs grow, the others fade."""
    return torch.where(needed < 0, (1.2 * weights).clamp(max=30), (0.95 * weights).clamp(min=0.3))

"""Losses for attacks on the deployed rule, and the distance to its failure, both in the unit of logits.

To break a sample at exit k, a wrong class must be on top there, the gate of k open, and the gates before it shut. Each of
these is a constraint (``exit_constraints``) that holds where a number is positive: the margin between logits, or a gate's
slack in log units, the logarithm of the threshold over the entropy. Log units matter where the softmax is saturated: the
gradient of the entropy vanishes there, that of its logarithm does not. It then acts like the cross-entropy to the uniform
distribution, but towards the classes nearest to the top one.

All values are per sample.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.attacks.objectives import Margin
from exitbench.models.at_once import at_once
from exitbench.models.policies import Policy, predictions

ALWAYS_SATISFIED = 1e4
"""The value of a constraint that always holds; finite, so that sums and gradients stay finite."""

SLACK_CAP, MARGIN_CAP = 0.3, 0.9
"""Values beyond which a constraint contributes no gradient: of a gate in log units, and of the class in logits."""


def exit_constraints(logits: Tensor, y: Tensor, policy: Policy, n_exits: int, target: Tensor | None = None) -> Tensor:
    """Return the constraints of breaking each sample at each exit: numbers that must all be positive.

    Args:
        logits: Logits ``(K', B, C)`` of the first K' exits.
        y: Labels ``(B,)``.
        policy: The deployed rule.
        n_exits: K, the number of exits of the whole network; the last exit has no gate.
        target: The wrong class ``(B,)`` to reach; None for the nearest.

    Returns:
        Constraints ``(K' + 1, K', B)`` for each exit: row j < K' is that on gate j, the last row that on the class.
    """
    cut = len(logits) < n_exits
    slacks, opened = _gates(torch.cat([logits, logits[-1:]]) if cut else logits, y, policy)
    always = torch.full_like(logits[:1, :, 0], ALWAYS_SATISFIED)
    slacks, opened = (gates if cut else torch.cat([gates, always]) for gates in (slacks, opened))
    gate = torch.arange(len(logits), device=y.device)[:, None, None]
    exit_ = gate.movedim(0, 1)
    wanted = torch.where(gate == exit_, opened[:, None], -slacks[:, None])
    gates = torch.where(gate <= exit_, wanted, torch.full_like(wanted, ALWAYS_SATISFIED))
    return torch.cat([gates, margins(predictions(logits, policy), y, target)[None]])


def constraints_at(logits: Tensor, y: Tensor, policy: Policy, k: Tensor, target: Tensor | None = None) -> Tensor:
    """Return the constraints of breaking each sample at an exit of its own, ``(K, B)``.

    Args:
        logits: Logits ``(K, B, C)`` of all exits.
        y: Labels ``(B,)``.
        policy: The deployed rule.
        k: The exit of each sample, 0-based, ``(B,)``.
        target: The wrong class ``(B,)`` to reach; None for the nearest.

    Returns:
        Row j < K - 1 is the constraint on gate j, ``ALWAYS_SATISFIED`` behind the exit; the last row is that on the class.
    """
    slacks, opened = _gates(logits, y, policy)
    gate = torch.arange(len(slacks), device=y.device)[:, None]
    wanted = torch.where(gate == k, opened, -slacks)
    gates = torch.where(gate <= k, wanted, torch.full_like(wanted, ALWAYS_SATISFIED))
    return torch.cat([gates, margins(predictions(logits, policy), y, target).gather(0, k[None])])


def _gates(logits: Tensor, y: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Return how far each gate is open, ``(K - 1, B)``, and how far for predictions other than ``y``."""
    rule = at_once(policy)
    slacks = rule.log_slack(logits)
    return slacks, slacks if type(policy).opening is Policy.opening else rule.opening(logits, y)


def margins(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Return by how much the logit of the target class, or of the best wrong one, exceeds that of the label, ``(K, B)``."""
    if target is None:
        return Margin()(logits, y)
    wanted, label = (logits.gather(-1, classes.expand(len(logits), -1).unsqueeze(-1))[..., 0] for classes in (target, y))
    return wanted - label


def distance_to_failure(logits: Tensor, y: Tensor, policy: Policy) -> Tensor:
    """Return the largest violation of a constraint at each exit, ``(K, B)``; it is negative where the sample is broken."""
    return torch.maximum(distance_at_gates(logits, y, policy), -margins(predictions(logits, policy), y))


def distance_at_gates(logits: Tensor, y: Tensor, policy: Policy) -> Tensor:
    """Return the largest violation of a constraint on a gate at each exit, ``(K, B)``, whatever the exits predict."""
    return torch.maximum(*_gate_violations(logits, y, policy))


def violations(logits: Tensor, y: Tensor, policy: Policy) -> Tensor:
    """Return what breaking each sample lacks at each exit, ``(3, K, B)``; negative where nothing is lacking.

    The rows: how far the gate before that is most open is open, how far the exit's own gate is shut, and by how much the label
    leads the best wrong class. Their largest is ``distance_to_failure``.
    """
    return torch.stack([*_gate_violations(logits, y, policy), -margins(predictions(logits, policy), y)])


def _gate_violations(logits: Tensor, y: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    slacks, opened = _gates(logits, y, policy)
    least = torch.full_like(logits[:1, :, 0], -ALWAYS_SATISFIED)
    return torch.cat([least, slacks]).cummax(0).values, torch.cat([-opened, least])


def pair_values(logits: Tensor, y: Tensor, policy: Policy) -> Tensor:
    """Return the smallest constraint of failing at each exit with each class, ``(K, C, B)``; minus infinity for the label.

    Args:
        logits: Logits ``(K, B, C)`` of all exits.
        y: Labels ``(B,)``.
        policy: The deployed rule.
    """
    predicted = predictions(logits, policy).movedim(-1, 1)
    label = y.expand(len(predicted), 1, -1)
    margin = (predicted - predicted.gather(1, label)).scatter(1, label, -torch.inf)
    return torch.minimum(margin, -distance_at_gates(logits, y, policy)[:, None])


def exit_probabilities(logits: Tensor, policy: Policy, temperature: float | Tensor) -> Tensor:
    """Return the probability ``(K, B)`` of taking each exit if gate k opens with ``sigmoid(log_slack_k / temperature)``."""
    return soft_exits(at_once(policy).log_slack(logits), temperature)


def soft_exits(slacks: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the probability ``(K, B)`` of taking each exit if gate k opens with ``sigmoid(slacks[k] / temperature)``.

    Args:
        slacks: Slacks ``(K - 1, B)``; the last exit has no gate.
        temperature: Softness of the gates, in the unit of ``slacks``.
    """
    gates = slacks / temperature
    certain = slacks.new_zeros((1, slacks.shape[1]))
    reached = torch.cat([certain, F.logsigmoid(-gates).cumsum(0)])
    return (reached + torch.cat([F.logsigmoid(gates), certain])).exp()


def expected_failure(logits: Tensor, y: Tensor, policy: Policy, temperature: float | Tensor) -> Tensor:
    """Return ``-log`` of the expected probability ``(B,)`` that the soft deployed rule gives to the label."""
    true = predictions(logits, policy).softmax(-1).gather(-1, y.expand(len(logits), -1)[..., None])[..., 0]
    return -torch.log((exit_probabilities(logits, policy, temperature) * true).sum(0) + 1e-12)


def expected_margin(logits: Tensor, y: Tensor, policy: Policy, temperature: float | Tensor) -> Tensor:
    """Return the expected margin ``(B,)`` of the soft deployed rule; ``tanh`` keeps exits already wrong from dominating."""
    return (exit_probabilities(logits, policy, temperature) * torch.tanh(margins(predictions(logits, policy), y))).sum(0)


def joint(needed: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum ``(B,)`` of constraints ``(J, B)``, the last one that on the class, each capped (``SLACK_CAP``)."""
    enough = torch.full_like(needed, SLACK_CAP)
    enough[-1] = MARGIN_CAP
    return (weights * torch.minimum(needed, enough)).sum(0)


def reweighted(weights: Tensor, needed: Tensor) -> Tensor:
    """Return the weights ``(J, B)`` after a step: those of violated constraints grow, the others decay."""
    return torch.where(needed < 0, (1.2 * weights).clamp(max=30), (0.95 * weights).clamp(min=0.3))

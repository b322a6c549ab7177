"""What an attack on the deployed rule ascends, and how far it still is: gates, soft and hard.

Everything is per sample. ``slack_k > 0`` means that gate k is open (``Policy.slack``); margins are of probabilities,
positive where an exit is wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.objectives import Margin
from models.policies import Policy


def gate_slacks(logits: Tensor, policy: Policy) -> Tensor:
    """Slack of every gate but the last exit's, which has none: ``(K - 1, B)`` from logits ``(K, B, C)``."""
    slacks = [policy.slack(logits_k, k) for k, logits_k in enumerate(logits[:-1])]
    return torch.stack(slacks) if slacks else logits.new_empty((0, logits.shape[1]))


def exit_probabilities(logits: Tensor, policy: Policy, temperature: float) -> Tensor:
    """Probability ``(K, B)`` of taking each exit when gate k opens with probability ``sigmoid(slack_k / temperature)``."""
    opens = torch.sigmoid(gate_slacks(logits, policy) / temperature)
    one = torch.ones_like(logits[:1, :, 0])
    reached = torch.cumprod(torch.cat([one, 1 - opens]), dim=0)
    return reached * torch.cat([opens, one])


def expected_failure(logits: Tensor, y: Tensor, policy: Policy, temperature: float) -> Tensor:
    """``-log`` of the expected probability ``(B,)`` that the soft deployed rule gives to the label."""
    true = logits.softmax(-1)[:, torch.arange(len(y), device=y.device), y]
    return -torch.log((exit_probabilities(logits, policy, temperature) * true).sum(0) + 1e-12)


def expected_margin(logits: Tensor, y: Tensor, policy: Policy, temperature: float) -> Tensor:
    """Expected bounded margin ``(B,)`` of the soft deployed rule: ``tanh`` keeps exits that are wrong already from dominating."""
    return (exit_probabilities(logits, policy, temperature) * torch.tanh(Margin()(logits, y))).sum(0)


def needs(logits: Tensor, y: Tensor, policy: Policy, k: Tensor) -> tuple[Tensor, Tensor]:
    """What breaking each sample at its exit ``k`` ``(B,)`` (0-based) needs to be positive.

    Returns:
        The probability margin ``(B,)`` at that exit, and for each gate ``(K - 1, B)`` its slack where it must open,
        minus its slack where it must stay shut, and infinity where it does not matter.
    """
    rows = torch.arange(len(y), device=y.device)
    margin = Margin()(logits[k, rows].softmax(-1)[None], y)[0]
    slacks = gate_slacks(logits, policy)
    gates = torch.arange(len(slacks), device=y.device)[:, None]
    wanted = torch.where(gates == k, slacks, -slacks)
    return margin, torch.where(gates <= k, wanted, torch.full_like(wanted, torch.inf))


def distance_to_failure(logits: Tensor, y: Tensor, policy: Policy) -> Tensor:
    """For each exit ``(K, B)``, the worst violation of what breaking the sample there needs; negative where it is broken."""
    violations = []
    for k in range(len(logits)):
        margin, gates = needs(logits, y, policy, torch.full_like(y, k))
        violations.append(-torch.minimum(margin, gates.amin(0) if len(gates) else margin))
    return torch.stack(violations)


def clipped(values: Tensor, limit: float) -> Tensor:
    """``min(value, limit)``: a constraint satisfied with some slack stops pulling."""
    return F.threshold(-values, -limit, -limit).neg()

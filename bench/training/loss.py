"""The training loss: the sum over the exits, and the joint terms of a phase."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.attacks.deployed_loss import expected_failure
from exitbench.attacks.objectives import CE
from exitbench.models.cost import measure_costs
from exitbench.models.gate_scores import score_of
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import Policy
from exitbench.training.recipe import Phase

DEPLOYED_TEMPERATURE = 0.3
"""Temperature of the soft gates in the deployed rule's loss, in log units of entropy."""


def training_loss(logits: Tensor, y: Tensor, phase: Phase, policy: Policy | None, weights: Tensor | None = None) -> Tensor:
    """Return the batch mean of the cross-entropy summed over the exits, plus the joint terms of ``phase``.

    Args:
        logits: Logits ``(K, B, classes)``.
        y: Labels ``(B,)``.
        phase: The phase, with the weights of the joint terms.
        policy: The deployed rule; without it there is no term for ``phase.deployed_weight``.
        weights: Weights ``(K,)`` of the exits' cross-entropies; None for 1 each.
    """
    each = CE()(logits, y).mean(1)
    loss = each.sum() if weights is None else (weights * each).sum()
    if phase.agreement:
        loss = loss + phase.agreement * disagreement(logits).mean()
    if policy is None or not phase.deployed_weight:
        return loss
    return loss + phase.deployed_weight * expected_failure(logits, y, policy, DEPLOYED_TEMPERATURE).mean()


def gate_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the batch mean of the gates' binary cross-entropies, summed over the gates.

    A gate's score is the logit of a probability; its target is whether its exit predicts the label. The heads get no gradient.

    Args:
        logits: Logits ``(K, B, classes)`` whose means are the scores of the gates, but for the last exit.
        y: Labels ``(B,)``.
    """
    right = (logits[:-1].argmax(-1) == y).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(score_of(logits[:-1]), right, reduction="none").mean(1).sum()


def cost_shares(model: MultiExitNet, input_shape: tuple[int, int, int]) -> Tensor:
    """Return the cost ``(K,)`` of each exit as a share of that of the last."""
    mmacs = measure_costs(model, input_shape).mmacs
    return torch.tensor(mmacs) / mmacs[-1]


def growing_weights(shares: Tensor, progress: float | Tensor) -> Tensor:
    """Return the weights ``(K,)`` of the exits' losses in the training of shallow-deep networks.

    That of the last exit is 1; those of the others grow from 0.01 to their shares of the cost (Kaya et al., ICML 2019, section
    3.2).

    Args:
        shares: Cost ``(K,)`` of each exit as a share of that of the last.
        progress: Share of all steps that are made, in [0, 1]; a number or a tensor ``()``.
    """
    weights = 0.01 + (shares - 0.01) * progress
    weights[-1].fill_(1.0)  # an assignment would copy the number from the host
    return weights


def disagreement(logits: Tensor) -> Tensor:
    """Return ``KL(last exit || exit)`` in nats, ``(B,)``, summed over the earlier exits; the last one gets no gradient.

    This is distillation of the last exit into the earlier ones (Hinton, Vinyals & Dean, 2015), on the attacked images.
    """
    taught = F.log_softmax(logits, dim=-1)
    teacher = taught[-1].detach()
    return (teacher.exp() * (teacher - taught[:-1])).sum(-1).sum(0)

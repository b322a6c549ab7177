"""What an update descends: every exit's own loss, and what a phase asks of the exits together."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from exitbench.attacks.deployed_loss import expected_failure
from exitbench.attacks.objectives import CE
from exitbench.models.policies import Policy
from exitbench.training.recipe import Phase

DEPLOYED_TEMPERATURE = 0.3
"""Softness of the gates in the deployed rule's loss, in log units of entropy."""


def training_loss(logits: Tensor, y: Tensor, phase: Phase, policy: Policy | None) -> Tensor:
    """Cross-entropy summed over the exits, a batch's mean, and what ``phase`` asks for beside it.

    Args:
        logits: ``(K, B, classes)``.
        y: labels ``(B,)``.
        policy: the deployed rule; needed for ``phase.deployed_weight``.
    """
    loss = CE()(logits, y).mean(1).sum()
    if phase.agreement:
        loss = loss + phase.agreement * disagreement(logits).mean()
    if policy is None or not phase.deployed_weight:
        return loss
    return loss + phase.deployed_weight * expected_failure(logits, y, policy, DEPLOYED_TEMPERATURE).mean()


def disagreement(logits: Tensor) -> Tensor:
    """Divergence ``KL(last exit || exit)`` summed over the exits before the last, ``(B,)``, in nats; the last stands as it is.

    The same as teaching the earlier exits by the last (Hinton, Vinyals & Dean, 2015) on the very images that are attacked.
    """
    taught = F.log_softmax(logits, dim=-1)
    teacher = taught[-1].detach()
    return (teacher.exp() * (teacher - taught[:-1])).sum(-1).sum(0)

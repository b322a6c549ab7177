"""The training loss: the sum over the exits, and the joint terms of a phase."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from exitbench.attacks.deployed_loss import expected_failure
from exitbench.attacks.objectives import CE
from exitbench.models.policies import Policy
from exitbench.training.recipe import Phase

DEPLOYED_TEMPERATURE = 0.3
"""Temperature of the soft gates in the deployed rule's loss, in log units of entropy."""


def training_loss(logits: Tensor, y: Tensor, phase: Phase, policy: Policy | None) -> Tensor:
    """Return the batch mean of the cross-entropy summed over the exits, plus the joint terms of ``phase``.

    Args:
        logits: Logits ``(K, B, classes)``.
        y: Labels ``(B,)``.
        phase: The phase, with the weights of the joint terms.
        policy: The deployed rule; without it there is no term for ``phase.deployed_weight``.
    """
    loss = CE()(logits, y).mean(1).sum()
    if phase.agreement:
        loss = loss + phase.agreement * disagreement(logits).mean()
    if policy is None or not phase.deployed_weight:
        return loss
    return loss + phase.deployed_weight * expected_failure(logits, y, policy, DEPLOYED_TEMPERATURE).mean()


def disagreement(logits: Tensor) -> Tensor:
    """Return ``KL(last exit || exit)`` in nats, ``(B,)``, summed over the earlier exits; the last one gets no gradient.

    This is distillation of the last exit into the earlier ones (Hinton, Vinyals & Dean, 2015), on the attacked images.
    """
    taught = F.log_softmax(logits, dim=-1)
    teacher = taught[-1].detach()
    return (teacher.exp() * (teacher - taught[:-1])).sum(-1).sum(0)

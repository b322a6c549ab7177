"""Measures of how uncertain an exit is, from its logits, and their logarithms, which search follows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FAR = 50.0
"""Log slack (absolute value) of a gate that is open, or shut, whatever the logits."""


def entropy(logits: Tensor) -> Tensor:
    """Return the softmax entropy (nats) over the last dimension: ``-sum p log(p + 1e-5)``, as in the code of "Triple Wins"."""
    p = torch.softmax(logits, dim=-1)
    return -(p * torch.log(p + 1e-5)).sum(-1)


def log_entropy(logits: Tensor) -> Tensor:
    """Return the logarithm of the softmax entropy (nats) over the last dimension, at any confidence; it is differentiable once.

    Once one class has all the probability, the entropy and its gradient round to zero; the logarithm then falls by about 1 per
    unit of logit (error up to 0.1 in fp32). The gradient has the closed form ``share - p``, where ``share`` is each class's part
    of the entropy: the gradient of the cross-entropy to the uniform distribution, with ``share`` in place of ``1 / classes``.
    """
    with torch.no_grad():
        log_p = torch.log_softmax(logits, dim=-1)
        log_parts = log_p + torch.log(-log_p)  # -infinity, no part, where a probability rounds to 1
        value = torch.logsumexp(log_parts, dim=-1)
        gradient = torch.exp(log_parts - value[..., None]) - log_p.exp()
    return value + (gradient * (logits - logits.detach())).sum(-1)


def confidence(logits: Tensor) -> Tensor:
    """Return the largest softmax probability over the last dimension."""
    return torch.softmax(logits, dim=-1).amax(-1)


def log_confidence_slack(logits: Tensor, threshold: float) -> Tensor:
    """Return ``log(1 - threshold) - log(1 - confidence)``, ``(B,)``, from logits ``(B, classes)``; ``FAR`` where it is fixed."""
    if not 0 < threshold < 1:
        return torch.full_like(logits[:, 0], FAR if threshold <= 0 else -FAR)
    top = torch.arange(logits.shape[-1], device=logits.device) == logits.argmax(-1)[..., None]
    rest = torch.logsumexp(logits.masked_fill(top, -torch.inf), -1) - torch.logsumexp(logits, -1)
    return math.log(1 - threshold) - rest

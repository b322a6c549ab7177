"""Networks whose exits have learned gates beside their classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from exitbench.models.gate_scores import ScoredHead
from exitbench.models.multi_exit import MultiExitNet

HIDDEN = 32
"""Units in the hidden layer of a gate."""


class GatedHead(ScoredHead):
    """A classifier head with a gate that sees the features and what the head makes of them.

    The gate takes the mean of the feature map over its positions and the probabilities of the head, sorted, through two linear
    layers with a ReLU between them. Its score is a logit: trained with ``gate_loss`` of ``exitbench.training.loss``, it estimates
    the probability that the exit is right.

    Args:
        head: Maps a feature map ``(B, C, H, W)`` to logits ``(B, classes)``.
        channels: C.
        n_classes: Number of classes.
    """

    def __init__(self, head: nn.Module, channels: int, n_classes: int = 10) -> None:
        super().__init__(head, nn.Sequential(nn.Linear(channels + n_classes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)))

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        probabilities = logits.softmax(-1).sort(-1, descending=True).values
        found: Tensor = self.gate(torch.cat([features.mean((-2, -1)), probabilities.to(features.dtype)], 1))
        return found


def with_gates(net: MultiExitNet, channels: Sequence[int]) -> MultiExitNet:
    """Return ``net`` with a gate beside every head but the last.

    Args:
        net: A network of ten classes whose stages return feature maps ``(B, C, H, W)``; stages and heads are shared, not copied.
        channels: Number of channels C of each stage but the last.

    Raises:
        ValueError: If there is not one number for each exit but the last.
    """
    *early, last = net.heads
    gated = [GatedHead(head, width) for head, width in zip(early, channels, strict=True)]
    return MultiExitNet(list(net.stages), [*gated, last])


def without_gates(net: MultiExitNet) -> MultiExitNet:
    """Return ``net`` without its gates. Stages and heads are shared: weights loaded into one are loaded into the other."""
    return MultiExitNet(list(net.stages), [head.head if isinstance(head, ScoredHead) else head for head in net.heads])


def gate_parameters(net: MultiExitNet) -> Iterator[nn.Parameter]:
    """Yield the parameters of all gates."""
    for head in net.heads:
        if isinstance(head, ScoredHead):
            yield from head.gate.parameters()

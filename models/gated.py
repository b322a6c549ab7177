"""Networks whose exits have learned gates beside their classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from exitbench.models.gate_scores import ScoredHead
from exitbench.models.multi_exit import MultiExitNet

HIDDEN = 32
"""Units in the hidden layer of a gate."""


def with_gates(net: MultiExitNet, channels: Sequence[int]) -> MultiExitNet:
    """Return ``net`` with a gate beside every head but the last.

    A gate averages the feature map over its positions and applies two linear layers with a ReLU between them. Its score is a
    logit: trained with ``gate_loss`` of ``exitbench.training.loss``, it estimates the probability that the exit is right.

    Args:
        net: A network whose stages return feature maps ``(B, C, H, W)``; its stages and heads are shared, not copied.
        channels: Number of channels C of each stage but the last.

    Raises:
        ValueError: If there is not one number for each exit but the last.
    """
    *early, last = net.heads
    gated = [ScoredHead(head, _gate(width)) for head, width in zip(early, channels, strict=True)]
    return MultiExitNet(list(net.stages), [*gated, last])


def without_gates(net: MultiExitNet) -> MultiExitNet:
    """Return ``net`` without its gates. Stages and heads are shared: weights loaded into one are loaded into the other."""
    return MultiExitNet(list(net.stages), [head.head if isinstance(head, ScoredHead) else head for head in net.heads])


def gate_parameters(net: MultiExitNet) -> Iterator[nn.Parameter]:
    """Yield the parameters of all gates."""
    for head in net.heads:
        if isinstance(head, ScoredHead):
            yield from head.gate.parameters()


def _gate(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

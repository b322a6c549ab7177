"""Shallow-deep networks: ResNet-56 and VGG-16 with internal classifiers spread over their cost.

Architecture: Kaya, Hong & Dumitras, "Shallow-Deep Networks: Understanding and Mitigating Network Overthinking" (ICML 2019),
sections 3 and 4: internal classifiers stand behind the layers that are closest to 15, 30, 45, 60, 75 and 90 % of the backbone's
multiply-accumulates. They reduce their features by a learnt mixture of max and average pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exitbench.models import papers
from exitbench.models.blocks import BasicBlock, conv_bn
from exitbench.models.multi_exit import MultiExitNet, without_branches
from exitbench.models.registry import register_model

SHARES = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)
"""Shares of the backbone's cost that internal classifiers are placed at."""

REDUCED = 4
"""Side in pixels that an internal classifier's features are reduced to, where they are larger."""

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the convolutions of VGG-16; every group ends in a pooling layer."""


class InternalClassifier(nn.Module):
    """A linear classifier on features that are reduced by a mixture of max and average pooling (section 3.1)."""

    def __init__(self, channels: int, side: int, n_classes: int = 10) -> None:
        super().__init__()
        self.side = min(side, REDUCED)
        self.mix = nn.Parameter(torch.full((1,), 0.5))
        self.linear = nn.Linear(channels * self.side**2, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mix * F.adaptive_max_pool2d(x, self.side) + (1 - self.mix) * F.adaptive_avg_pool2d(x, self.side)
        logits: Tensor = self.linear(pooled.flatten(1))
        return logits


def places(costs: Sequence[float], shares: Sequence[float] = SHARES) -> list[int]:
    """Return, for each share, the index of the layer at whose end the cost so far is closest to that share of the whole."""
    total = sum(costs)
    so_far = [cost / total for cost in accumulate(costs)]
    return [min(range(len(so_far)), key=lambda i: abs(so_far[i] - share)) for share in shares]


def _with_classifiers(
    layers: Sequence[nn.Module], costs: Sequence[float], features: Sequence[tuple[int, int]], last: nn.Module
) -> MultiExitNet:
    """Cut a backbone behind the layers that internal classifiers are placed at.

    Args:
        layers: The layers, in order.
        costs: What each costs.
        features: Channels and side in pixels of what each passes on.
        last: The final classifier.
    """
    cuts = places(costs)
    stages, heads, start = [], [], 0
    for cut in cuts:
        stages.append(nn.Sequential(*layers[start : cut + 1]))
        heads.append(InternalClassifier(*features[cut]))
        start = cut + 1
    stages.append(nn.Sequential(*layers[start:]))
    return MultiExitNet(stages, [*heads, last])


_cifar = partial(register_model, dataset="cifar10", input_shape=(3, 32, 32))


@_cifar(title="SDN-ResNet-56", family="ResNet", paper=papers.SDN)
def sdn_resnet56() -> MultiExitNet:
    """SDN of ResNet-56: 9 blocks per group, 7 exits."""
    layers: list[nn.Module] = [nn.Sequential(*conv_bn(3, 16, 3, padding=1), nn.ReLU())]
    costs, features = [3 * 16 * 9 * 32**2], [(16, 32)]
    c_in = 16
    for group, channels in enumerate((16, 32, 64)):
        side = 32 // 2**group
        for block in range(9):
            stride = 2 if group and not block else 1
            layers.append(BasicBlock(c_in, channels, stride))
            shortcut = c_in * channels if c_in != channels else 0
            costs.append((9 * c_in * channels + 9 * channels**2 + shortcut) * side**2)
            features.append((channels, side))
            c_in = channels
    return _with_classifiers(layers, costs, features, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)))


@_cifar(title="SDN-VGG-16", family="VGG", paper=papers.SDN)
def sdn_vgg16() -> MultiExitNet:
    """SDN of VGG-16 with batch normalisation: 13 convolutions, 7 exits."""
    layers: list[nn.Module] = []
    costs, features = [], []
    c_in, side = 3, 32
    for group in VGG16:
        for i, channels in enumerate(group):
            ends = i == len(group) - 1
            layers.append(nn.Sequential(*conv_bn(c_in, channels, 3, padding=1), nn.ReLU(), *[nn.MaxPool2d(2)] * ends))
            costs.append(9 * c_in * channels * side**2)
            side //= 1 + ends
            features.append((channels, side))
            c_in = channels
    hidden = [nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5)]
    last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *hidden, nn.Linear(512, 10))
    return _with_classifiers(layers, costs, features, last)


@_cifar(title="ResNet-56", family="ResNet", paper=papers.RESNET)
def resnet56() -> MultiExitNet:
    """ResNet-56: the backbone of its SDN without internal classifiers."""
    return without_branches(sdn_resnet56())


@_cifar(title="VGG-16", family="VGG", paper=papers.VGG)
def vgg16() -> MultiExitNet:
    """VGG-16 with batch normalisation: the backbone of its SDN without internal classifiers."""
    return without_branches(sdn_vgg16())

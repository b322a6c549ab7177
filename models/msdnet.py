"""MSDNet for images of 32 pixels: features of three scales, densely connected, with a classifier on the coarsest.

Architecture: Huang, Chen, Li, Wu, van der Maaten & Weinberger, "Multi-Scale Dense Networks for Resource Efficient Image
Classification" (ICLR 2018), section 4 and appendix A. The order of layers and the widths of bottlenecks that the paper leaves
open are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from exitbench.models import papers
from exitbench.models.blocks import conv_bn
from exitbench.models.multi_exit import MultiExitNet, without_branches
from exitbench.models.registry import register_model

Features = list[Tensor]
"""Features ``(B, channels, side, side)`` of the scales that are left, the finest first; each has half the side of the last."""

N_SCALES = 3
CHANNELS, GROWTH = 16, 6
"""Channels of the finest scale behind the first layer, and those that a layer adds to it; scale s has ``2^s`` times as many."""
REDUCTION = 0.5
"""Share of the channels that is kept where a scale is dropped."""


def _conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_bn(c_in, c_out, kernel, stride=stride, padding=kernel // 2), nn.ReLU())


def _bottleneck_conv(c_in: int, c_out: int, scale: int, stride: int = 1) -> nn.Sequential:
    """Return a 1x1 convolution to at most ``2^scale`` times the output's channels, and a 3x3 convolution."""
    inner = min(c_in, c_out * 2**scale)
    return nn.Sequential(*_conv(c_in, inner, kernel=1), *_conv(inner, c_out, stride=stride))


class _First(nn.Module):
    """The first layer: a convolution of the image, and from each scale one of stride 2 to the next."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels * 2**scale for scale in range(N_SCALES)]
        self.scales = nn.ModuleList([_conv(3, widths[0]), *(_conv(*pair, stride=2) for pair in pairwise(widths))])

    def forward(self, x: Tensor) -> Features:
        features = []
        for scale in self.scales:
            x = scale(x)
            features.append(x)
        return features


class _Layer(nn.Module):
    """A layer: each scale gets new channels from itself and, by a convolution of stride 2, from the finer scale.

    Args:
        channels: Channels of the input, as those of scale 0 would be.
        growth: Channels that are added, likewise.
        finest: The finest scale of the output.
        drops: Whether the input has one scale more, which is only used for the next.
    """

    def __init__(self, channels: int, growth: int, finest: int, drops: bool) -> None:
        super().__init__()
        self.drops = drops
        self.same, self.finer = nn.ModuleList(), nn.ModuleList()
        for scale in range(finest, N_SCALES):
            c_in, c_out = channels * 2**scale, growth * 2**scale
            has_finer = drops or scale > finest
            new = c_out // 2 if has_finer else c_out
            self.same.append(_bottleneck_conv(c_in, new, scale))
            if has_finer:
                self.finer.append(_bottleneck_conv(c_in // 2, new, scale - 1, stride=2))

    def forward(self, features: Features) -> Features:
        kept = features[1:] if self.drops else features
        finer = [down(x) for down, x in zip(self.finer, features, strict=False)]
        from_finer = finer if self.drops else [None, *finer]
        return [
            torch.cat([x, same(x)] if down is None else [x, down, same(x)], dim=1)
            for x, same, down in zip(kept, self.same, from_finer, strict=True)
        ]


class _Transition(nn.Module):
    """A 1x1 convolution of each scale that is left, to fewer channels."""

    def __init__(self, c_in: int, c_out: int, finest: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_conv(c_in * 2**scale, c_out * 2**scale, kernel=1) for scale in range(finest, N_SCALES))

    def forward(self, features: Features) -> Features:
        return [reduce(x) for reduce, x in zip(self.scales, features, strict=True)]


class _Coarsest(nn.Module):
    """Returns the features of the coarsest scale."""

    def forward(self, features: Features) -> Tensor:
        return features[-1]


def _head(channels: int, n_classes: int) -> nn.Module:
    """Return a classifier: two convolutions of stride 2 with 128 channels, the mean over the image, and a linear layer."""
    layers = [*_conv(channels * 2 ** (N_SCALES - 1), 128, stride=2), *_conv(128, 128, stride=2)]
    return nn.Sequential(_Coarsest(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, n_classes))


def build_msdnet(layers: Sequence[int], *, channels: int = CHANNELS, growth: int = GROWTH, n_classes: int = 10) -> MultiExitNet:
    """Build an MSDNet with one exit behind each block of layers.

    The layers are divided into three parts; each part but the first drops the finest scale that is left, and half of the
    channels of the others (network reduction, section 4).

    Args:
        layers: Number of layers of each block.
        channels: Channels of the finest scale behind the first layer.
        growth: Channels that a layer adds to the finest scale; an even number.
        n_classes: Number of classes.
    """
    interval = -(-sum(layers) // N_SCALES)
    stages: list[nn.Module] = []
    heads: list[nn.Module] = []
    width, finest, number = channels, 0, 0
    for n_layers in layers:
        block: list[nn.Module] = [] if stages else [_First(channels)]
        for _ in range(n_layers):
            drops = number // interval > finest
            finest += drops
            block.append(_Layer(width, growth, finest, drops))
            width += growth
            if drops:
                block.append(_Transition(width, int(REDUCTION * width), finest))
                width = int(REDUCTION * width)
            number += 1
        stages.append(nn.Sequential(*block))
        heads.append(_head(width, n_classes))
    return MultiExitNet(stages, heads)


_cifar = partial(register_model, dataset="cifar10", input_shape=(3, 32, 32))


@_cifar(title="MSDNet, 5 exits", family="DenseNet", paper=papers.MSDNET)
def msdnet() -> MultiExitNet:
    """MSDNet of 15 layers in blocks of 1 to 5, 5 exits: the smaller network of the paper's budgeted setting."""
    return build_msdnet(range(1, 6))


@_cifar(title="MSDNet, 6 exits", family="DenseNet", paper=papers.MSDNET)
def msdnet21() -> MultiExitNet:
    """MSDNet of 21 layers in blocks of 1 to 6, 6 exits: budgeted setting."""
    return build_msdnet(range(1, 7))


@_cifar(title="MSDNet (anytime), 11 exits", family="DenseNet", paper=papers.MSDNET)
def msdnet_anytime() -> MultiExitNet:
    """MSDNet of 24 layers, the first exit behind 4 and then one behind every 2, 11 exits: the paper's anytime setting."""
    return build_msdnet([4] + [2] * 10)


@_cifar(title="MSDNet (anytime), 7 exits", family="DenseNet", paper=papers.MSDNET)
def msdnet_anytime7() -> MultiExitNet:
    """MSDNet of 16 layers, 7 exits: the anytime network of the authors' PyTorch code."""
    return build_msdnet([4] + [2] * 6)


@_cifar(title="MSDNet without early exits", family="DenseNet", paper=papers.MSDNET)
def msdnet_whole() -> MultiExitNet:
    """The backbone of MSDNet of 15 layers without branches."""
    return without_branches(msdnet())

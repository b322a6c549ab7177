"""RDI-ResNet-38/74/110/152 for CIFAR-10, the same backbones without branches, and a narrower one.

Architecture: Hu, Chen, Wang & Wang, "Triple Wins" (ICLR 2020), section 4 and appendix.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from exitbench.models import papers
from exitbench.models.blocks import BasicBlock, conv_bn
from exitbench.models.gated import with_gates
from exitbench.models.multi_exit import MultiExitNet, without_branches
from exitbench.models.registry import register_model

GROUP_CHANNELS = (16, 32, 64)


def branch_blocks(blocks_per_group: int) -> tuple[int, int]:
    """Return the two blocks of each group, counted from 0, that are followed by a branch."""
    return blocks_per_group // 4, 3 * blocks_per_group // 4


def rdi_resnet(blocks_per_group: int, width: float = 1.0) -> MultiExitNet:
    """Build a CIFAR ResNet of ``6 * blocks_per_group + 2`` layers with two branches per group: seven exits.

    Args:
        blocks_per_group: Number of blocks in each of the three groups.
        width: Factor on the number of channels in the backbone.
    """
    widths = [int(channels * width) for channels in GROUP_CHANNELS]
    stages: list[nn.Module] = []
    c_in = widths[0]
    stage: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(*conv_bn(3, c_in, 3, padding=1), nn.ReLU()))
    for group, channels in enumerate(widths):
        for block in range(blocks_per_group):
            stride = 2 if group > 0 and block == 0 else 1
            stage[f"group{group}_block{block}"] = BasicBlock(c_in, channels, stride)
            c_in = channels
            if block in branch_blocks(blocks_per_group):
                stages.append(nn.Sequential(stage))
                stage = OrderedDict()
    stages.append(nn.Sequential(stage))
    early, middle, late = widths
    heads = [_convolutional_head(early) for _ in range(2)]
    heads += [_block_head(middle) for _ in range(2)]
    heads += [_linear_head(late) for _ in range(3)]
    return MultiExitNet(stages, heads)


def _convolutional_head(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.MaxPool2d(2),
        *conv_bn(channels, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *conv_bn(64, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def _block_head(channels: int) -> nn.Module:
    block = BasicBlock(channels, channels)
    return nn.Sequential(nn.MaxPool2d(2), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def _linear_head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


_cifar = partial(register_model, dataset="cifar10", input_shape=(3, 32, 32))


@_cifar(title="RDI-ResNet-38", family="ResNet", paper=papers.RDI)
def rdi_resnet38() -> MultiExitNet:
    """RDI-ResNet-38: 6 blocks per group, 7 exits."""
    return rdi_resnet(6)


@_cifar(title="RDI-ResNet-38 with gates", family="ResNet", paper=papers.RDI)
def rdi_resnet38_gated() -> MultiExitNet:
    """RDI-ResNet-38 with a learned gate at each exit but the last, for the exit rule ``gate``."""
    early, middle, late = GROUP_CHANNELS
    return with_gates(rdi_resnet(6), [early] * 2 + [middle] * 2 + [late] * 2)


@_cifar(title="RDI-ResNet-74", family="ResNet", paper=papers.RDI)
def rdi_resnet74() -> MultiExitNet:
    """RDI-ResNet-74: 12 blocks per group, 7 exits."""
    return rdi_resnet(12)


@_cifar(title="RDI-ResNet-110", family="ResNet", paper=papers.RDI)
def rdi_resnet110() -> MultiExitNet:
    """RDI-ResNet-110: 18 blocks per group, 7 exits."""
    return rdi_resnet(18)


@_cifar(title="RDI-ResNet-152", family="ResNet", paper=papers.RDI)
def rdi_resnet152() -> MultiExitNet:
    """RDI-ResNet-152: 25 blocks per group, 7 exits."""
    return rdi_resnet(25)


@_cifar(title="ResNet-38", family="ResNet", paper=papers.RESNET)
def resnet38() -> MultiExitNet:
    """ResNet-38: the backbone of RDI-ResNet-38 without branches."""
    return without_branches(rdi_resnet(6))


@_cifar(title="ResNet-38, width 0.75", family="ResNet", paper=papers.RESNET)
def resnet38_075() -> MultiExitNet:
    """ResNet-38, width 0.75, without branches: the smaller net that leaving early competes with."""
    return without_branches(rdi_resnet(6, 0.75))


@_cifar(title="ResNet-74", family="ResNet", paper=papers.RESNET)
def resnet74() -> MultiExitNet:
    """ResNet-74: the backbone of RDI-ResNet-74 without branches."""
    return without_branches(rdi_resnet(12))


@_cifar(title="ResNet-110", family="ResNet", paper=papers.RESNET)
def resnet110() -> MultiExitNet:
    """ResNet-110: the backbone of RDI-ResNet-110 without branches."""
    return without_branches(rdi_resnet(18))


@_cifar(title="ResNet-152", family="ResNet", paper=papers.RESNET)
def resnet152() -> MultiExitNet:
    """ResNet-152: the backbone of RDI-ResNet-152 without branches."""
    return without_branches(rdi_resnet(25))

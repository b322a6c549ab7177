"""BranchyNet: LeNet with one side branch, and ResNet-110 with two.

Architecture: Teerapittayanon, McDanel & Kung, "BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks" (ICPR
2016), section 4. B-LeNet has a branch of one convolution and one linear layer behind the first convolution. B-ResNet has
branches of three and of two convolutions and a linear layer, behind the 2nd and the 37th layer. Widths of B-LeNet are those of
the authors' code.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from exitbench.models import papers
from exitbench.models.blocks import BasicBlock, conv_bn
from exitbench.models.multi_exit import MultiExitNet, without_branches
from exitbench.models.registry import register_model

_mnist = partial(register_model, dataset="mnist", input_shape=(1, 28, 28))
_cifar = partial(register_model, dataset="cifar10", input_shape=(3, 32, 32))


def _pool() -> list[nn.Module]:
    return [nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()]


@_mnist(title="B-LeNet", family="LeNet", paper=papers.BRANCHYNET)
def branchynet_lenet() -> MultiExitNet:
    """B-LeNet: three convolutions and two linear layers, 2 exits."""
    stages = [
        nn.Conv2d(1, 5, 5, padding=3),
        nn.Sequential(*_pool(), nn.Conv2d(5, 10, 5, padding=3), *_pool(), nn.Conv2d(10, 20, 5, padding=3), *_pool()),
    ]
    heads = [
        nn.Sequential(*_pool(), nn.Conv2d(5, 10, 3, padding=1), *_pool(), nn.Flatten(), nn.Linear(640, 10)),
        nn.Sequential(nn.Flatten(), nn.Linear(720, 84), nn.ReLU(), nn.Linear(84, 10)),
    ]
    return MultiExitNet(stages, heads)


@_mnist(title="LeNet", family="LeNet", paper=papers.BRANCHYNET)
def branchynet_lenet_whole() -> MultiExitNet:
    """LeNet: the backbone of B-LeNet without its branch."""
    return without_branches(branchynet_lenet())


def _branch(channels: int, n_convolutions: int) -> nn.Module:
    """Return a branch of convolutions of stride 2, the mean over the image, and a linear layer."""
    layers = [layer for _ in range(n_convolutions) for layer in (*conv_bn(channels, channels, 3, stride=2, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


@_cifar(title="B-ResNet-110", family="ResNet", paper=papers.BRANCHYNET)
def branchynet_resnet() -> MultiExitNet:
    """B-ResNet-110: 18 blocks per group, 3 exits; the first branch stands behind the block that holds the 2nd layer."""
    blocks: list[nn.Module] = []
    c_in = 16
    for group, channels in enumerate((16, 32, 64)):
        for block in range(18):
            blocks.append(BasicBlock(c_in, channels, 2 if group and not block else 1))
            c_in = channels
    stem = nn.Sequential(*conv_bn(3, 16, 3, padding=1), nn.ReLU())
    stages = [nn.Sequential(stem, blocks[0]), nn.Sequential(*blocks[1:18]), nn.Sequential(*blocks[18:])]
    last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return MultiExitNet(stages, [_branch(16, 3), _branch(16, 2), last])


@_cifar(title="ResNet-110, 1x1 shortcuts", family="ResNet", paper=papers.RESNET)
def branchynet_resnet_whole() -> MultiExitNet:
    """ResNet-110 with 1x1 shortcuts: the backbone of B-ResNet-110 without its branches."""
    return without_branches(branchynet_resnet())

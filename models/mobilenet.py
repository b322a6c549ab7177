"""RDI-MobileNetV2 for CIFAR-10 (width 1 and 0.75) and the same backbones without branches.

Architecture: Hu, Chen, Wang & Wang, "Triple Wins" (ICLR 2020), on Sandler et al., CVPR 2018.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from exitbench.models import papers
from exitbench.models.blocks import InvertedResidual, conv_bn
from exitbench.models.multi_exit import MultiExitNet, without_branches
from exitbench.models.registry import register_model

# (expansion, channels, repeats, stride of the first), Sandler et al., table 2, with CIFAR strides.
BLOCK_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
BRANCHES_AFTER = (1, 4, 7, 9, 12, 15)  # blocks, counted from 1
LAST_CHANNELS = 1280


def rdi_mobilenetv2_of_width(width: float) -> MultiExitNet:
    """Build a MobileNetV2 with all widths but the last multiplied by ``width``, and with six branches: seven exits."""

    def scaled(channels: int) -> int:
        return int(channels * width)

    c_in = scaled(32)
    stages: list[nn.Module] = []
    stage: list[nn.Module] = [*conv_bn(3, c_in, 3, padding=1), nn.ReLU()]
    branch_inputs = []
    block = 0
    for expansion, channels, repeats, first_stride in BLOCK_GROUPS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            stage.append(InvertedResidual(c_in, scaled(channels), expansion=expansion, stride=stride))
            c_in = scaled(channels)
            block += 1
            if block in BRANCHES_AFTER:
                stages.append(nn.Sequential(*stage))
                stage = []
                branch_inputs.append(c_in)
    stages.append(nn.Sequential(*stage, *conv_bn(c_in, LAST_CHANNELS, 1), nn.ReLU()))

    first, second, *pooled, sixth = branch_inputs
    heads = [
        _first_head(first, scaled(32), scaled(64)),
        nn.Sequential(InvertedResidual(second, scaled(32), expansion=6, stride=2), *_pool_and_classify(scaled(32))),
        *(nn.Sequential(*_pool_and_classify(channels)) for channels in pooled),
        nn.Sequential(*_pool_and_classify(sixth)),
        nn.Sequential(*_pool_and_classify(LAST_CHANNELS)),
    ]
    return MultiExitNet(stages, heads)


def _first_head(c_in: int, middle: int, c_out: int) -> nn.Module:
    return nn.Sequential(
        InvertedResidual(c_in, middle, expansion=6, stride=2),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        InvertedResidual(middle, c_out, expansion=6, stride=2),
        nn.BatchNorm2d(c_out),
        *_pool_and_classify(c_out),
    )


def _pool_and_classify(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


_cifar = partial(register_model, dataset="cifar10", input_shape=(3, 32, 32))


@_cifar(title="RDI-MobileNetV2", family="MobileNet", paper=papers.RDI)
def rdi_mobilenetv2() -> MultiExitNet:
    """RDI-MobileNetV2, width 1, 7 exits."""
    return rdi_mobilenetv2_of_width(1.0)


@_cifar(title="RDI-MobileNetV2, width 0.75", family="MobileNet", paper=papers.RDI)
def rdi_mobilenetv2_075() -> MultiExitNet:
    """RDI-MobileNetV2, width 0.75, 7 exits."""
    return rdi_mobilenetv2_of_width(0.75)


@_cifar(title="MobileNetV2", family="MobileNet", paper=papers.MOBILENET_V2)
def mobilenetv2() -> MultiExitNet:
    """MobileNetV2, width 1: the backbone of RDI-MobileNetV2 without branches."""
    return without_branches(rdi_mobilenetv2_of_width(1.0))


@_cifar(title="MobileNetV2, width 0.75", family="MobileNet", paper=papers.MOBILENET_V2)
def mobilenetv2_075() -> MultiExitNet:
    """MobileNetV2, width 0.75: the backbone of RDI-MobileNetV2 without branches."""
    return without_branches(rdi_mobilenetv2_of_width(0.75))

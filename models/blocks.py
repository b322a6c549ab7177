"""The residual blocks that the registered networks are built from."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from exitbench.models.depthwise import DepthwiseConv2d


def conv_bn(c_in: int, c_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    """Return a convolution without bias and its batch normalisation, as a list to splice into ``Sequential``."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=padding, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions (He et al., CVPR 2016, figure 2), with a 1x1 shortcut where shapes change."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(c_in, c_out, 3, stride=stride, padding=1),
            nn.ReLU(),
            *conv_bn(c_out, c_out, 3, padding=1),
        )
        changes_shape = stride != 1 or c_in != c_out
        self.shortcut = nn.Sequential(*conv_bn(c_in, c_out, 1, stride=stride)) if changes_shape else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """An inverted residual block: expansion, depthwise convolution, projection (Sandler et al., CVPR 2018, section 3.3).

    A stride-1 block adds its shortcut, through a 1x1 convolution where the width changes, as in
    the CIFAR variant that RDI-MobileNetV2 uses.
    """

    def __init__(self, c_in: int, c_out: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * c_in
        self.body = nn.Sequential(
            *conv_bn(c_in, hidden, 1),
            nn.ReLU(),
            DepthwiseConv2d(hidden, 3, stride=stride, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            *conv_bn(hidden, c_out, 1),
        )
        self.adds_shortcut = stride == 1
        changes_width = self.adds_shortcut and c_in != c_out
        self.shortcut = nn.Sequential(*conv_bn(c_in, c_out, 1)) if changes_width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out + self.shortcut(x) if self.adds_shortcut else out

"""Depthwise convolution that avoids slow bf16 kernels on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` of one filter per channel, without bias.

    On CPUs, torch has no kernel for the input gradient of a strided depthwise convolution in bf16 and falls back to one that is
    30 times slower. There, the convolution is computed at every position, and the outputs that the stride would have visited are
    kept: the results are the same, in a tenth of the time.
    """

    def __init__(self, channels: int, kernel: int, *, stride: int, padding: int) -> None:
        super().__init__(channels, channels, kernel, stride=stride, padding=padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1) or not _in_bf16_on_cpu(x):
            return super().forward(x)
        down, right = self.stride
        whole = F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)
        return F.avg_pool2d(whole, 1, (down, right))


def _in_bf16_on_cpu(x: Tensor) -> bool:
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.device.type == "cpu" and (autocast or x.dtype == torch.bfloat16)

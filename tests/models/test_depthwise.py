"""The depthwise convolution equals torch's, also where it avoids the slow kernel."""

import copy

import pytest
import torch
from torch.nn import functional as F

from exitbench.models.depthwise import DepthwiseConv2d


def layer_and_images(stride, side):
    torch.manual_seed(0)
    return DepthwiseConv2d(4, 3, stride=stride, padding=1), torch.randn(2, 4, side, side)


def outputs(call, layer, x):
    """Return the output, and the gradients with respect to images and weights."""
    x = x.clone().requires_grad_()
    out = call(x)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    return out, *torch.autograd.grad((out.float() * weights).sum(), [x, layer.weight])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("how", ["as it is", "autocast", "cast"])
def test_it_is_a_strided_convolution_of_each_channel(stride, side, how):
    layer, x = layer_and_images(stride, side)
    wanted = outputs(lambda x: F.conv2d(x, layer.weight, stride=stride, padding=1, groups=4), layer, x)
    if how == "cast":
        layer, x = copy.deepcopy(layer).bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        found = outputs(layer, layer, x)
    tolerance = 1e-6 if how == "as it is" else 0.03
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.float(), other, atol=tolerance * other.abs().max().item(), rtol=0)

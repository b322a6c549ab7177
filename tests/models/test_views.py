"""Views work with other libraries: ``view`` can be called on their gradients, whatever layout the network computes in."""

import pytest
import torch
from torch import nn

from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import EntropyPolicy
from exitbench.models.views import DeployedView, ExitView


def placed() -> MultiExitNet:
    torch.manual_seed(0)
    stages = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(64, 5)) for _ in range(2)]
    return MultiExitNet(stages, heads).eval().placed(torch.device("cpu"))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("make", [lambda net: ExitView(net, 1), lambda net: DeployedView(net, EntropyPolicy((1.6,)))])
def test_gradients_are_laid_out_row_after_row(make, size):
    net = placed()
    x = torch.rand(size, 3, 4, 4).requires_grad_()
    (inside,) = torch.autograd.grad(net(x).sum(), x)
    assert not inside.is_contiguous(), "the network's own are not, or there is nothing to tell"
    (gradient,) = torch.autograd.grad(make(net)(x).sum(), x)
    assert gradient.is_contiguous() and gradient.view(size, -1).shape == (size, 48)

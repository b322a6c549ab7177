"""Networks as people return them, compiled or lazy, are made plain: the same function, with gradients and parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from exitbench.models.foreign import ForeignModelError
from exitbench.models.plain_net import initialise, without_compilation


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(16, 8)), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())


class Decorated(Net):
    @torch.compile(backend="aot_eager")
    def forward(self, x):
        return self.head(self.body(x).relu())


def whole():
    return torch.compile(Net(), backend="aot_eager")


def part():
    net = Net()
    net.body = torch.compile(net.body, backend="aot_eager")
    return net


def shared():
    net = Net()
    net.head = torch.compile(net.head, backend="aot_eager")
    net.again = net.head
    return net


def in_place():
    net = Net()
    net.compile(backend="aot_eager")
    return net


def by_method():
    net = Net()
    net.body.forward = torch.compile(net.body.forward, backend="aot_eager")
    return net


@pytest.mark.parametrize("make", [whole, part, shared, in_place, by_method, Decorated])
def test_what_is_compiled_is_undone_wherever_it_is(make):
    net = make().eval()
    x = torch.rand(4, 1, 4, 4, requires_grad=True)
    expected = net(x).detach()
    plain, was_compiled = without_compilation(net)
    assert was_compiled and not any("_orig_mod" in name for name in plain.state_dict())
    logits = plain(x)
    assert torch.equal(logits, expected)
    first = torch.autograd.grad(logits.sum(), x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(logits.sum(), x, retain_graph=True)[0], first), "a gradient can be taken twice"
    assert torch.equal(copy.deepcopy(plain)(x), expected)
    assert without_compilation(plain) == (plain, False)


def test_a_plain_network_is_itself():
    net = Net()
    assert without_compilation(net) == (net, False)
    initialise(net, (1, 9, 9))  # a shape that it cannot run: it is not run


def lazy():
    return nn.Sequential(nn.LazyConv2d(2, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))


def test_lazy_layers_get_their_parameters_the_same_every_time():
    state, found = torch.get_rng_state(), []
    for _ in range(2):
        net = lazy()
        initialise(net, (1, 4, 4))
        found.append(net.state_dict())
        torch.rand(1)
    assert found[0]["3.weight"].shape == (3, 8)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert net.training and torch.equal(net[1].running_mean, torch.zeros(2)), "the run leaves no trace in statistics"
    torch.set_rng_state(state)


class Never(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.LazyLinear(3), nn.LazyLinear(3)

    def forward(self, x):
        return self.used(x.flatten(1))


def test_lazy_layers_that_cannot_be_initialised_say_so():
    with pytest.raises(ForeignModelError, match=r"on an image of 1x2x2 \(RuntimeError: .*"):
        initialise(lazy(), (1, 2, 2))
    with pytest.raises(ForeignModelError, match=r"does not reach the lazy parameter unused\.weight"):
        initialise(Never(), (1, 2, 2))

"""AutoAttack with its targets and queries side by side finds the package's images, and counts the package's passes."""

import pytest
import torch
from torch import nn

from exitbench.attacks import side_by_side, square_queries
from exitbench.attacks.side_by_side import set_side_by_side
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.views import ExitView
from exitbench.runner.passes import counted

SHAPE, CLASSES = (2, 6, 6), 6


@pytest.fixture(scope="module")
def net():
    """A network with a bend, on which targets and queries fool some images early, some late and some not at all."""
    torch.manual_seed(3)
    stage = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh())
    net = MultiExitNet([stage], [nn.Sequential(nn.Flatten(), nn.Linear(96, CLASSES))])
    return net.double().eval().requires_grad_(False)


class Double(nn.Module):
    """A view in float64, in which it hardly matters what else is in a batch."""

    def __init__(self, view):
        super().__init__()
        self.view = view

    def forward(self, x):
        return self.view(x.double()).float()


def images(net, n=12):
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))
    return x, net(x.double())[-1].argmax(-1)


def package(net, norm, eps):
    from pyautoattack import AutoAttack

    made = AutoAttack(Double(ExitView(net, 1)), norm=norm, eps=eps, version="standard", seed=5)
    made.apgd_targeted.n_target_classes = made.fab.n_target_classes = CLASSES - 1
    made.apgd_targeted.n_iter, made.fab.n_iter, made.square.n_queries = 10, 8, 300
    made.fab.targeted = True
    made.fab.n_restarts = 1
    return made


ATTACKS = [
    ("Linf", 0.03, "apgd_targeted"),
    ("L2", 0.3, "apgd_targeted"),
    ("Linf", 0.03, "fab"),
    ("L2", 0.3, "fab"),
    ("Linf", 0.06, "square"),
]


@pytest.mark.parametrize(("norm", "eps", "name"), ATTACKS)
@pytest.mark.parametrize("width", [1, 40, 200])
def test_images_and_passes_are_those_of_the_package(norm, eps, name, width, net, monkeypatch):
    monkeypatch.setitem(square_queries.WIDTH, "cpu", width)
    x, y = images(net)
    with torch.no_grad(), counted(net) as alone:
        plain = getattr(package(net, norm, eps), name).perturb(x, y)
    ours = package(net, norm, eps)
    set_side_by_side(ours)
    with torch.no_grad(), counted(net) as together:
        found = getattr(ours, name).perturb(x, y)
    torch.testing.assert_close(found, plain)
    assert together == alone
    fooled = int((net(found.double())[-1].argmax(-1) != y).sum())
    assert 2 < fooled < len(x) - 2


def test_what_is_left_goes_through_the_network_together(net):
    """Nine targets of one image take as many batches as one target, and queries that change nothing go many at a time."""
    x, y = images(net, 1)
    for name, most in (("apgd_targeted", 13), ("fab", 20), ("square", 60)):
        sizes = []
        handle = net.entry.register_forward_hook(lambda _net, _inputs, out, sizes=sizes: sizes.append(len(out)))
        ours = package(net, "Linf", 1e-4)
        set_side_by_side(ours)
        with torch.no_grad():
            getattr(ours, name).perturb(x, y)
        handle.remove()
        assert len(sizes) <= most, name


def test_untargeted_attacks_with_restarts_are_left_to_the_package(net):
    x, y = images(net)
    found = []
    for ahead in (False, True):
        made = package(net, "Linf", 0.08)
        made.fab.targeted, made.fab.n_restarts = False, 2
        if ahead:
            set_side_by_side(made)
        with torch.no_grad():
            found.append(made.fab.perturb(x, y))
    assert torch.equal(*found)
    assert side_by_side.WIDTH is square_queries.WIDTH

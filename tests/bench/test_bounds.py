"""Bounds of networks: they hold everywhere in the ball, are exact where they should be, and name what they do not know."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from exitbench.bounds import nonlinear
from exitbench.bounds.interval import Interval
from exitbench.bounds.network import interval_bounds, lower_bounds, margin_bounds, node_bounds
from exitbench.bounds.trace import Unsupported, ensure_same, traced
from exitbench.models.multi_exit import MultiExitNet

SHAPE = (2, 6, 6)


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x):
        return F.relu(self.body(x) + x)


class Mixture(nn.Module):
    """The pooling of shallow-deep networks, a dense connection, and arithmetic with constants."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.full((1,), 0.3))

    def forward(self, x):
        pooled = self.mix * F.adaptive_max_pool2d(x, 2) + (1 - self.mix) * F.adaptive_avg_pool2d(x, 2)
        return torch.cat([pooled, 1 - 2 * pooled], dim=1).flatten(1)


BLOCKS = {
    "stride": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1),
    "grouped": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2),
    "dilated": lambda: nn.Conv2d(4, 4, 2, dilation=2),
    "residual": lambda: Residual(4),
    "relu": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
    "max": lambda: nn.MaxPool2d(2),
    "overlapping": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "ceil": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2, stride=1),
    "dropout": lambda: nn.Dropout(0.5),
}
HEADS = {
    "flat": lambda width, side: nn.Sequential(nn.Flatten(), nn.Linear(width * side**2, 5), nn.ReLU(), nn.Linear(5, 3)),
    "mean": lambda width, side: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)),
    "mixture": lambda width, side: nn.Sequential(Mixture(), nn.Linear(8 * width, 3)),
}


def network(blocks, head, seed):
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
    rest = nn.Sequential(*(BLOCKS[name]() for name in blocks))
    with torch.no_grad():
        sides = [stage(torch.zeros(2, *SHAPE)).shape[-1] for stage in (first, nn.Sequential(first, rest))]
    heads = [HEADS["mean"](4, sides[0]), HEADS[head if sides[1] % 2 == 0 or head != "mixture" else "flat"](4, sides[1])]
    net = MultiExitNet([first, rest], heads)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 2)
            nn.init.normal_(module.weight)
    return net.eval().requires_grad_(False)


def outside(net, seed, eps, *, rounding=True, points=40):
    """Return by how much random points of random balls leave the bounds of all exits' logits and of differences of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64)
    traced_net = traced(net, SHAPE)
    features = interval_bounds(traced_net, Interval((x - eps).clamp(0, 1), (x + eps).clamp(0, 1)), rounding=rounding)
    y = torch.tensor([0, 2])
    exact = copy.deepcopy(net).double()
    signs = torch.randint(-1, 2, (points, *x.shape), generator=generator)  # corners, faces and the inside
    amounts = torch.where(signs == 0, 2 * torch.rand(signs.shape, generator=generator) - 1, signs)
    worst = -torch.inf
    images = (x + eps * amounts).clamp(0, 1)
    logits = [exact(each) for each in images]
    for k, number in enumerate(traced_net.exits):
        for interval in (features.of(number), node_bounds(features, number)):
            for each in logits:
                worst = max(worst, float((interval.low - each[k]).max()), float((each[k] - interval.high).max()))
        for through in (False, True):
            margins = margin_bounds(features, k, y, through=through)
            for each in logits:
                worst = max(worst, float((margins - (each[k].gather(1, y[:, None]) - each[k])).max()))
    return worst


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4),
    head=st.sampled_from(sorted(HEADS)),
    seed=st.integers(0, 10**6),
    eps=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
)
def test_no_point_of_the_ball_leaves_the_bounds(blocks, head, seed, eps):
    try:
        net = network(blocks, head, seed)
    except (RuntimeError, ZeroDivisionError):  # shrunk to nothing
        return
    assert outside(net, seed, eps) <= 0


def test_the_same_check_catches_a_bound_that_is_not_sound(monkeypatch):
    net = network(["relu", "residual", "max"], "flat", 1)
    assert outside(net, 1, 0.1) <= 0
    sound = nonlinear.ReLU.backward

    def unsound(self, a, inputs, output):
        backs, constant = sound(self, a, inputs, output)
        return backs, constant * 0  # the chord without its height

    monkeypatch.setattr(nonlinear.ReLU, "backward", unsound)
    assert outside(net, 1, 0.1) > 1e-3
    monkeypatch.undo()
    of_max = nonlinear.MaxPool._others
    monkeypatch.setattr(nonlinear.MaxPool, "_others", lambda self, high, places: of_max(self, high, places) * 0 - 100)
    assert max(outside(network(["overlapping"], "mean", seed), seed, 0.3) for seed in range(5)) > 1e-3


def test_an_affine_network_has_exact_bounds():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 6), nn.Linear(6, 4)]
    net = MultiExitNet([nn.Sequential(*layers[:3])], [nn.Sequential(*layers[3:])]).eval().requires_grad_(False)
    x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    features = interval_bounds(traced(net, SHAPE), Interval(x - 0.1, x + 0.1), rounding=False)
    exact = copy.deepcopy(net).double()
    weights = torch.stack([torch.autograd.functional.jacobian(lambda image, j=j: exact(image)[0, 0, j], x) for j in range(4)])
    rows = weights[1] - weights
    truth = (exact(x)[0, 0, 1] - exact(x)[0, 0]) - 0.1 * rows.abs().flatten(1).sum(1)
    for through in (False, True):  # all layers are multiplied out in both cases
        found = margin_bounds(features, 0, torch.tensor([1]), through=through)[0]
        assert torch.allclose(found, truth, atol=1e-6)


def test_backward_substitution_is_exact_where_no_relu_is_unstable():
    torch.manual_seed(3)
    hidden = nn.Linear(2, 8)
    nn.init.constant_(hidden.bias, 5.0)
    hidden.bias.data[::2] = -5.0
    net = MultiExitNet([nn.Sequential(nn.Flatten(), hidden, nn.ReLU())], [nn.Linear(8, 3)]).eval().requires_grad_(False)
    x = torch.tensor([[[[0.4, 0.6]]]], dtype=torch.float64)
    features = interval_bounds(traced(net, (1, 1, 2)), Interval(x - 0.2, x + 0.2), rounding=False)
    corners = torch.cartesian_prod(*[torch.tensor([-0.2, 0.2], dtype=torch.float64)] * 2).view(4, 1, 1, 2)
    logits = copy.deepcopy(net).double()(x + corners)[0]
    truth = (logits[:, :1] - logits).amin(0)
    assert torch.allclose(margin_bounds(features, 0, torch.tensor([0]))[0], truth, atol=1e-6)
    loose = margin_bounds(features, 0, torch.tensor([0]), through=False)[0]
    assert (loose <= truth + 1e-9).all() and (loose < truth - 1e-3).any()


def test_bounding_small_layers_anew_is_never_looser():
    net = network(["relu", "residual"], "flat", 5)
    x = torch.rand(3, *SHAPE, dtype=torch.float64)
    ball = Interval(x - 0.05, x + 0.05)
    plain, tight = (interval_bounds(traced(net, SHAPE), ball, neurons=neurons) for neurons in (0, 1000))
    for loose, other in zip(plain.intervals, tight.intervals, strict=True):
        assert (other.low >= loose.low - 1e-9).all() and (other.high <= loose.high + 1e-9).all()
    last = plain.network.exits[1]
    assert (tight.of(last).radius < plain.of(last).radius).all()


def test_logits_in_fp32_lie_in_the_bounds_of_a_single_image():
    """The network that judges is the fp32 one: bounds of a ball of radius zero hold its rounding, and little more."""
    net = network(["residual", "max", "relu"], "flat", 7)
    x = torch.rand(50, *SHAPE)
    features = interval_bounds(traced(net, SHAPE), Interval(x.double(), x.double()))
    for k, number in enumerate(features.network.exits):
        logits, bounds = net(x)[k].double(), features.of(number)
        assert (bounds.low <= logits).all() and (logits <= bounds.high).all()
        exact = copy.deepcopy(net).double()(x.double())[k]
        assert (logits != exact).any() and float(bounds.radius.max()) < 1e-3
    ensure_same(features.network, net, x)
    without = interval_bounds(traced(net, SHAPE), Interval(x.double(), x.double()), rounding=False)
    assert (net(x)[1].double() < without.of(features.network.exits[1]).low).any()


def test_what_has_no_bounds_is_named():
    head = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(Unsupported, match=r"Sigmoid"):
        traced(MultiExitNet([nn.Sigmoid()], [head]).eval(), SHAPE)
    with pytest.raises(Unsupported, match=r"whose padding is circular"):
        traced(MultiExitNet([nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")], [head]).eval(), SHAPE)

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(Unsupported, match="cannot be read off"):
        traced(MultiExitNet([Branches()], [head]).eval(), SHAPE)

    class Batch(nn.Module):
        def forward(self, x):
            return x - x.mean(0, keepdim=True)

    with pytest.raises(Unsupported, match="mixes the images of a batch"):
        traced(MultiExitNet([Batch()], [head]).eval(), SHAPE)


def test_a_network_that_computes_something_else_than_its_trace_is_refused():
    class Hidden(nn.Module):
        def forward(self, x):
            return x if isinstance(x, torch.fx.Proxy) else 2 * x

    net = MultiExitNet([Hidden()], [nn.Sequential(nn.Flatten(), nn.Linear(72, 3))]).eval()
    with pytest.raises(Unsupported, match="exit 1 computes something else"):
        ensure_same(traced(net, SHAPE), net, torch.rand(2, *SHAPE))


def test_lower_bounds_of_rows_of_zeros_are_zero():
    net = network(["relu"], "flat", 2)
    x = torch.rand(2, *SHAPE, dtype=torch.float64)
    features = interval_bounds(traced(net, SHAPE), Interval(x - 0.1, x + 0.1))
    assert (lower_bounds(features, features.network.exits[1], torch.zeros(2, 1, 3, dtype=torch.float64)) == 0).all()

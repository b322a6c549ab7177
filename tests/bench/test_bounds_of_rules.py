"""What is certain of deployed rules, compared with all points of a fine grid."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exitbench.bounds import gates
from exitbench.bounds.certify import METHODS, ball, proven
from exitbench.bounds.gates import ExitBounds
from exitbench.bounds.network import interval_bounds, margin_bounds
from exitbench.bounds.rules import certain, understood
from exitbench.bounds.trace import traced
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, deployed_logits
from exitbench.models.rules.ensemble import EnsemblePolicy, VotePolicy
from exitbench.models.rules.gate import GatePolicy
from exitbench.models.rules.margin import MarginPolicy
from exitbench.models.rules.patience import PatiencePolicy
from exitbench.models.rules.temperature import Tempered
from exitbench.models.uncertainty import confidence, entropy

INF = math.inf
RULES = [
    EntropyPolicy((0.9, 0.6)),
    EntropyPolicy((-INF, INF)),
    ConfidencePolicy((0.6, 0.7)),
    ConfidencePolicy((INF, 0.5)),
    MarginPolicy((0.3, 0.5)),
    MarginPolicy((-1.0, 0.5)),
    FixedExit(1),
    FixedExit(2),
    FixedExit(3),
    PatiencePolicy(2),
    PatiencePolicy(3),
    Tempered(EntropyPolicy((0.9, 0.6)), (0.5, 2.0, 1.0)),
    Tempered(VotePolicy((0.6, 0.6)), (0.5, 2.0, 1.0)),
    VotePolicy((0.6, 0.6)),
    EnsemblePolicy((0.6, 0.6)),
    GatePolicy((0.0, 0.0)),
]


def small(seed, *, agreeing=False):
    """A network of two pixels, three exits and three classes, with logits of some size; exits that agree are of other sizes."""
    torch.manual_seed(seed)
    stages = [
        nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.ReLU()),
        *(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(2)),
    ]
    net = MultiExitNet(stages, [nn.Linear(8, 3) for _ in range(3)])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
        for k in (1, 2) if agreeing else ():
            net.stages[k][0].weight.copy_(torch.eye(8))
            net.stages[k][0].bias.zero_()
            net.heads[k].weight.copy_((1 + k) * net.heads[0].weight)
            net.heads[k].bias.copy_((1 + k) * net.heads[0].bias)
    return net.eval().requires_grad_(False)


def grid(x, eps, n=41):
    """All points ``(n * n, 1, 1, 2)`` of a grid over the ball of one image, edges included."""
    sides = [torch.linspace(float((x[i] - eps).clamp(0, 1)), float((x[i] + eps).clamp(0, 1)), n) for i in range(2)]
    return torch.cartesian_prod(*sides).view(-1, 1, 1, 2)


def contradictions(net, policy, seed, eps=0.04, n=24):
    """Return how many balls are certified, and how many of them a point of the grid contradicts."""
    x = torch.rand(n, 1, 1, 2, generator=torch.Generator().manual_seed(seed))
    y = deployed_logits(net(x), policy)[0].argmax(-1)
    y[::6] = (y[::6] + 1) % 3  # some labels that the network gets wrong
    found = proven(traced(net, (1, 1, 2)), net, policy, x, y, eps, methods=METHODS)
    wrong = 0
    for i in range(n):
        predicted, taken = deployed_logits(net(grid(x[i, 0, 0], eps)), policy)
        right, last = bool((predicted.argmax(-1) == y[i]).all()), int(taken.max())
        wrong += any((bool(each.right[i]) and not right) or int(each.last[i]) < last for each in found)
    for loose, tight in pairwise(found):
        assert (tight.right | ~loose.right).all() and (tight.last <= loose.last).all()
    return int(found[-1].right.sum()), wrong


@pytest.mark.parametrize("policy", RULES, ids=str)
def test_no_certified_ball_is_contradicted_on_a_grid(policy):
    certified = 0
    for seed in range(3):
        some, wrong = contradictions(small(seed, agreeing=not understood(policy)), policy, seed)
        certified += some
        assert wrong == 0
    assert certified > 3


@pytest.mark.parametrize(
    ("bound", "policy"),
    [
        ("least_wrong_entropy", EntropyPolicy((0.9, 0.6))),
        ("greatest_wrong_confidence", ConfidencePolicy((0.6, 0.7))),
        ("greatest_wrong_margin", MarginPolicy((0.3, 0.5))),
        ("greatest_entropy", EntropyPolicy((0.9, 0.6))),
        ("least_confidence", ConfidencePolicy((0.6, 0.7))),
        ("least_margin", MarginPolicy((0.3, 0.5))),
    ],
)
def test_the_grid_catches_a_bound_that_is_not_sound(bound, policy, monkeypatch):
    sign = 1 if bound in ("least_wrong_entropy", "least_confidence", "least_margin") else -1
    sound = getattr(gates, bound)
    monkeypatch.setattr(gates, bound, lambda exit_: sound(exit_) + sign)
    assert sum(contradictions(small(seed), policy, seed)[1] for seed in range(3)) > 0


def box(data, n_classes, n=40):
    """Random logits, and bounds of their differences that they attain, of labels and classes at random."""
    seed, scale, width = data
    generator = torch.Generator().manual_seed(seed)
    centre = scale * torch.randn(n_classes, generator=generator, dtype=torch.float64)
    points = centre + width * (2 * torch.rand(n, n_classes, generator=generator, dtype=torch.float64) - 1)
    label, named = torch.randint(0, n_classes, (2, 1), generator=generator)
    differences = [(points[:, each] - points).amin(0)[None] for each in (label, named)]
    return points, ExitBounds(label, differences[0], named, differences[1], points.abs().max()[None])


@settings(max_examples=150, deadline=None)
@given(
    data=st.tuples(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 5.0, 30.0]), st.sampled_from([0.0, 0.1, 1.0, 5.0])),
    n_classes=st.integers(2, 12),
)
def test_bounds_of_gates_hold_for_all_logits_within_the_differences(data, n_classes):
    points, exit_ = box(data, n_classes)
    p = torch.softmax(points, -1)
    exact, of_rule = -torch.xlogy(p, p).sum(-1), entropy(points)
    assert float(gates.greatest_entropy(exit_)) >= float(exact.max()) - 1e-9
    assert (of_rule <= exact + 1e-12).all()
    assert float(gates.least_confidence(exit_)) <= float(confidence(points).min()) + 1e-12
    first, second = p.topk(2, -1).values.unbind(-1)
    assert float(gates.least_margin(exit_)) <= float((first - second).min()) + 1e-12
    wrong = points.argmax(-1) != exit_.labels
    if wrong.any():
        assert float(gates.least_wrong_entropy(exit_)) <= float(of_rule[wrong].min()) + 1e-12
        assert float(gates.greatest_wrong_confidence(exit_)) >= float(p.amax(-1)[wrong].max()) - 1e-12
        assert float(gates.greatest_wrong_margin(exit_)) >= float((first - second)[wrong].max()) - 1e-12


@settings(max_examples=100, deadline=None)
@given(data=st.tuples(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 10.0, 60.0]), st.just(1.0)), n_classes=st.integers(2, 12))
def test_fp32_keeps_within_the_errors_that_are_allowed_for(data, n_classes):
    points, _ = box(data, n_classes)
    single, double = points.float(), points.float().double()
    assert (torch.softmax(single, -1) - torch.softmax(double, -1)).abs().max() <= gates.softmax_error(n_classes)
    assert (entropy(single) - entropy(double)).abs().max() <= gates.entropy_error(n_classes)


def test_where_bounds_overflow_nothing_is_certain():
    """A minus infinity or NaN in a bound must not turn into a class that can never be predicted."""
    net = small(0)
    deep = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(12)]
    for layer, _ in deep:
        layer.weight.data.fill_(1e38)
    net.heads[1] = nn.Sequential(*deep, net.heads[1])
    net.requires_grad_(False)
    layers, x = traced(net, (1, 1, 2)), torch.rand(4, 1, 1, 2)
    y = net(x)[2].argmax(-1)
    for through in (False, True):
        assert not torch.isfinite(margin_bounds(interval_bounds(layers, ball(x, 0.01)), 1, y, through=through)).all()
    assert proven(layers, net, FixedExit(3), x, y, 0.01)[-1].right.any()
    for policy in (EntropyPolicy((-INF, 0.5)), ConfidencePolicy((INF, 0.5)), MarginPolicy((2.0, 0.1)), VotePolicy((0.6, 0.6))):
        assert not proven(layers, net, policy, x, y, 0.01)[-1].right.any()


def exits_of(margins, n_classes=3):
    """Exits of one ball at which the label 0 leads each other class by at least ``margins``."""
    lead = [torch.tensor([[0.0] + [m] * (n_classes - 1)], dtype=torch.float64) for m in margins]
    zero = torch.zeros(1, dtype=torch.int64)
    return [ExitBounds(zero, each, zero, each, torch.full((1,), 100.0, dtype=torch.float64)) for each in lead]


def test_an_exit_may_be_wrong_where_its_gate_is_shut():
    rule = ConfidencePolicy((0.9,))
    assert certain(rule, exits_of([-1.0, 5.0])).right  # a wrong class has at most 73 %
    assert not certain(rule, exits_of([-3.0, 5.0])).right  # up to 95 %
    assert certain(rule, exits_of([5.0, -9.0])).right and int(certain(rule, exits_of([5.0, -9.0])).last) == 0  # always leaves
    assert int(certain(rule, exits_of([-1.0, 5.0])).last) == 1


def test_a_rule_whose_gates_are_not_understood_needs_every_exit():
    for rule in (VotePolicy((0.9,)), EnsemblePolicy((0.9,)), GatePolicy((0.0,))):
        assert not understood(rule) and not understood(Tempered(rule, (1.0, 1.0)))
        assert certain(rule, exits_of([1.0, 1.0])).right and int(certain(rule, exits_of([9.0, 9.0])).last) == 1
        assert not certain(rule, exits_of([9.0, -0.1])).right

    class Odd(VotePolicy):
        """A rule that predicts something of its own."""

    assert not certain(Odd((0.9,)), exits_of([9.0, 9.0])).right

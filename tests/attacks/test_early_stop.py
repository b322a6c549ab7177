"""Testing every iterate of an attack on one exit finds samples that break at another."""

import pytest
import torch

from exitbench.attacks.early_stop import EarlyStopModel
from exitbench.attacks.objectives import CE, Objective, Only
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.models.policies import FixedExit
from exitbench.runner.passes import counted
from tests.attacks.test_adaptive import NET, policy_for, right, sample

BALL = ThreatModel("Linf", 0.06)
POLICY = policy_for()


def test_a_hit_is_in_the_ball_and_breaks_the_rule_and_others_are_clean():
    x, y, noise = sample(POLICY)
    net = EarlyStopModel(NET, x, y, POLICY, BALL)
    PGD(Objective(CE(), Only(1)), BALL, 5, 0.02)(net, x, y, noise=noise)
    assert 0 < net.broken.sum() < len(y), "the toy must have something to tell"
    assert torch.equal(right(NET, net.found, y, POLICY), ~net.broken)
    assert (BALL.distance(net.found, x) <= BALL.eps + 1e-6).all()
    assert torch.equal(net.found[~net.broken], x[~net.broken])


def test_who_is_broken_costs_nothing_more_and_the_others_are_not_disturbed():
    x, y, _ = sample(POLICY)
    net = EarlyStopModel(NET, x, y, FixedExit(3), BALL)
    torch.testing.assert_close(net(x), NET(x))
    wrong = net.y.clone()
    wrong[:2] = (wrong[:2] + 1) % 5
    net = EarlyStopModel(NET, x, wrong, POLICY, BALL)
    net(x)
    assert torch.equal(net.broken, ~right(NET, x, wrong, POLICY)) and net.broken.sum() >= 2
    left = int((~net.broken).sum())
    with counted(net) as passes:
        logits = net(x.requires_grad_())
        (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert (passes.forwards, passes.backwards) == (left, left)
    assert not logits[:, net.broken].any() and not gradient[net.broken].any()
    torch.testing.assert_close(logits[:, ~net.broken], NET(x)[:, ~net.broken])


def test_when_all_are_broken_nothing_is_computed():
    x, y, _ = sample(POLICY)
    net = EarlyStopModel(NET, x, (y + 1) % 5, POLICY, BALL)
    first = net(x)
    assert net.broken.all()
    with counted(net) as passes:
        logits = net(x.requires_grad_(), upto=1)
        (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert passes.forwards == 0 and logits.shape == (2, *first.shape[1:]) and not gradient.any()


@pytest.mark.parametrize("moved", [0.07, -0.07])
def test_what_leaves_the_ball_is_no_hit(moved):
    x, y, _ = sample(POLICY)
    net = EarlyStopModel(NET, x, (y + 1) % 5, POLICY, BALL)
    net(x + moved)
    assert not net.broken.any()


def test_a_batch_of_other_images_is_let_through():
    x, y, _ = sample(POLICY)
    net = EarlyStopModel(NET, x, (y + 1) % 5, POLICY, BALL)
    torch.testing.assert_close(net(x[:3]), NET(x[:3]))
    assert not net.broken.any()

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.deployed_loss import clipped, distance_to_failure, exit_probabilities, expected_failure
from attacks.noise import Noise
from attacks.objectives import CE, Mean, Objective
from attacks.pgd import PGD
from attacks.policy_attack import PolicyAttack
from attacks.regions import NORMS, Ball
from bench.harness.passes import counted
from models.calibration import equal_share
from models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, deployed_logits
from tests.toys import batch, linear_exits, small_convolutional

NET = small_convolutional(3)
SHAPE = (1, 4, 4)


def policy_for(kind="entropy"):
    return equal_share(NET(batch(60, SHAPE, 5)[0]), kind)


def right(net, x, y, policy):
    return deployed_logits(net(x), policy)[0].argmax(-1) == y


def sample(policy, n=40):
    """Images that the deployed rule gets right."""
    x, _, noise = batch(n, SHAPE, 5)
    return x, deployed_logits(NET(x), policy)[0].argmax(-1), noise


logits_of = st.integers(0, 10_000).map(lambda seed: 3 * torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(seed)))
thresholds = st.lists(st.floats(0.01, 1.7), min_size=3, max_size=3).map(tuple)


@given(logits_of, thresholds)
def test_failing_is_a_negative_distance_to_failure(logits, values):
    y = torch.arange(9) % 6
    for policy in (EntropyPolicy(values), ConfidencePolicy(tuple(min(0.95, v / 2) for v in values)), FixedExit(3)):
        taken, exits = deployed_logits(logits, policy)
        violations = distance_to_failure(logits, y, policy)
        fails = taken.argmax(-1) != y
        at_exit = violations[exits, torch.arange(9)]
        assert ((at_exit < 1e-5) | ~fails).all()
        assert (fails | (violations.amin(0) > -1e-5)).all()


@given(logits_of, thresholds, st.floats(0.01, 2))
def test_exit_probabilities_are_a_distribution_and_harden_into_the_policy(logits, values, temperature):
    policy = EntropyPolicy(values)
    torch.testing.assert_close(exit_probabilities(logits, policy, temperature).sum(0), torch.ones(9))
    slacks = torch.stack([policy.slack(logits[k], k) for k in range(3)]).abs()
    clear = (slacks > 1e-3).all(0)
    hard = exit_probabilities(logits, policy, 1e-5)
    assert (hard.argmax(0)[clear] == policy(logits)[clear]).all()


@given(logits_of, thresholds)
def test_slack_is_positive_where_inputs_leave(logits, values):
    for policy in (EntropyPolicy(values), ConfidencePolicy(tuple(min(0.95, v / 2) for v in values)), FixedExit(2)):
        for k in range(3):
            slack, leaves = policy.slack(logits[k], k), policy.leaves(logits[k], k)
            assert ((slack > 0) == leaves)[slack.abs() > 1e-5].all()


@pytest.mark.parametrize("end", [math.inf, -math.inf])
def test_infinite_thresholds_have_a_finite_slack(end):
    logits = torch.randn(3, 5, 4)
    for policy in (EntropyPolicy((end, end)), ConfidencePolicy((end, end))):
        slack = policy.slack(logits[0], 0)
        assert torch.isfinite(slack).all() and ((slack > 0) == policy.leaves(logits[0], 0)).all()
        assert torch.isfinite(expected_failure(logits, torch.zeros(5, dtype=torch.int64), policy, 0.1)).all()


def test_clipping_is_a_minimum_with_a_gradient_below_it():
    values = torch.tensor([-1.0, 0.1, 0.15, 2.0], requires_grad=True)
    out = clipped(values, 0.15)
    torch.testing.assert_close(out, values.clamp(max=0.15))
    assert torch.autograd.grad(out.sum(), values)[0].tolist()[:2] == [1, 1]


@settings(max_examples=15)
@given(st.sampled_from(NORMS), st.floats(0, 0.4), st.sampled_from(["entropy", "confidence"]))
def test_candidates_are_in_ball_and_box(norm, eps, kind):
    policy = policy_for(kind)
    x, y, noise = sample(policy, 8)
    x_adv = PolicyAttack(Ball(norm, eps), policy)(NET, x, y, noise=noise)
    assert (Ball(norm, eps).distance(x_adv, x) <= eps + 1e-5).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@pytest.mark.parametrize("kind", ["entropy", "confidence"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.3)])
def test_it_leaves_no_more_than_pgd_on_the_average(norm, eps, kind):
    policy = policy_for(kind)
    x, y, noise = sample(policy)
    ball = Ball(norm, eps)
    average = PGD(Objective(CE(), Mean()), ball, 40, eps / 4)(NET, x, y, noise=noise)
    adaptive = PolicyAttack(ball, policy)(NET, x, y, noise=noise)
    left = [int(right(NET, x_adv, y, policy).sum()) for x_adv in (average, adaptive)]
    assert left[1] <= left[0] < len(y)


def test_on_one_exit_it_breaks_what_can_be_broken():
    """An affine two-class exit can be flipped exactly where ``|m(x)| < eps * ||w||_1``; the attack must find it."""
    net = linear_exits(1, n_classes=2)
    x, _, noise = batch(40)
    head = net.heads[0][1]
    head.bias[1] -= (net(x)[0, :, 1] - net(x)[0, :, 0]).mean()  # through the middle of the images
    y = net(x)[0].argmax(-1)
    weight = net.heads[0][1].weight[1] - net.heads[0][1].weight[0]
    margin = (net(x)[0, :, 1] - net(x)[0, :, 0]).abs()
    radius = margin / weight.abs().sum()
    eps = float(radius.sort().values[19:21].mean())
    assert eps < 0.35, "the box must not bind"
    x_adv = PolicyAttack(Ball("Linf", eps), FixedExit(1))(net, x, y, noise=noise)
    assert torch.equal(~right(net, x_adv, y, FixedExit(1)), radius < eps)


def test_survivors_alone_go_on():
    policy = policy_for()
    x, y, noise = sample(policy)
    with counted(NET) as none_left:
        PolicyAttack(Ball("Linf", 0.9), policy)(NET, x, y, noise=noise)
    with counted(NET) as all_left:
        PolicyAttack(Ball("Linf", 0.0), policy)(NET, x, y, noise=noise)
    assert none_left.backwards < all_left.backwards / 3
    assert all_left.backwards == len(y) * 2 * (20 + 20 + 3 * 25)


def test_results_do_not_depend_on_how_the_batch_is_split():
    policy = policy_for()
    x, y, noise = sample(policy, 12)
    attack = PolicyAttack(Ball("Linf", 0.05), policy)
    whole = attack(NET, x, y, noise=noise)
    parts = [attack(NET, x[s], y[s], noise=Noise(noise.seed, noise.samples[s])) for s in (slice(0, 5), slice(5, 12))]
    assert torch.equal(right(NET, torch.cat(parts), y, policy), right(NET, whole, y, policy))


def test_a_sample_wrong_from_the_start_costs_no_gradient():
    policy = policy_for()
    x, y, noise = sample(policy, 8)
    with counted(NET) as passes:
        x_adv = PolicyAttack(Ball("Linf", 0.1), policy)(NET, x, (y + 1) % 5, noise=noise)
    assert passes.backwards == 0 and torch.equal(x_adv, x)

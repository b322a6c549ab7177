import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.adaptive_search import Search
from exitbench.attacks.cascade import Cascade
from exitbench.attacks.deployed_loss import (
    distance_to_failure,
    exit_constraints,
    exit_probabilities,
    expected_failure,
    expected_margin,
    joint,
    margins,
    reweighted,
)
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Margin, Mean, Objective, Only
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.models.calibration import equal_share
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, deployed_logits
from exitbench.models.uncertainty import log_entropy
from exitbench.runner.passes import counted
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


def policies(values):
    return EntropyPolicy(values), ConfidencePolicy(tuple(min(0.95, v / 2) for v in values)), FixedExit(3)


@given(logits_of, thresholds)
def test_failing_is_a_negative_distance_to_failure(logits, values):
    y = torch.arange(9) % 6
    for policy in policies(values):
        taken, exits = deployed_logits(logits, policy)
        distances = distance_to_failure(logits, y, policy)
        slacks = torch.stack([policy.log_slack(logits[: k + 1]) for k in range(3)])
        clear = (slacks.abs() > 0.02).all(0)  # the released entropy is off by 1e-5 per class
        fails = taken.argmax(-1) != y
        assert torch.equal((distances.amin(0) < 0)[clear], fails[clear])
        assert (distances[exits, torch.arange(9)] < 0)[clear & fails].all()


@given(logits_of, thresholds)
def test_needs_up_to_an_exit_are_those_of_the_whole_network(logits, values):
    y = torch.arange(9) % 6
    for policy in policies(values):
        whole, part = exit_constraints(logits, y, policy, 4), exit_constraints(logits[:2], y, policy, 4)
        assert torch.equal(whole[[0, 1, 4]][:, :2], part)
        assert torch.equal(whole[-1], Margin()(logits, y))


@given(logits_of, thresholds, st.floats(0.01, 2))
def test_exit_probabilities_are_a_distribution_and_harden_into_the_policy(logits, values, temperature):
    policy = EntropyPolicy(values)
    torch.testing.assert_close(exit_probabilities(logits, policy, temperature).sum(0), torch.ones(9))
    clear = (torch.stack([policy.log_slack(logits[: k + 1]) for k in range(3)]).abs() > 0.02).all(0)
    hard = exit_probabilities(logits, policy, 1e-5)
    assert (hard.argmax(0)[clear] == policy(logits)[clear]).all()


def test_a_need_met_stops_pulling_and_a_violated_one_pulls_harder_every_step():
    needed = torch.tensor([[-1.0], [0.1], [5.0], [0.5]], requires_grad=True)
    weights = torch.ones(4, 1)
    for _ in range(5):
        before, weights = weights, reweighted(weights, needed.detach())
        assert (weights > before).flatten().tolist() == [True, False, False, False]
    (gradient,) = torch.autograd.grad(joint(needed, weights).sum(), needed)
    assert gradient[2] == 0 and gradient[0] > gradient[1] > 0 and gradient[3] > 0


def test_the_margin_of_a_target_is_that_of_its_class():
    logits = torch.randn(2, 5, 4)
    y, target = torch.zeros(5, dtype=torch.int64), torch.full((5,), 3)
    torch.testing.assert_close(margins(logits, y, target), logits[..., 3] - logits[..., 0])


@settings(max_examples=8)
@given(st.sampled_from(NORMS), st.floats(0, 0.4), st.sampled_from(["entropy", "confidence"]))
def test_candidates_are_in_ball_and_box(norm, eps, kind):
    policy = policy_for(kind)
    x, y, noise = sample(policy, 8)
    x_adv = Adaptive(ThreatModel(norm, eps), policy, 60)(NET, x, y, noise=noise)
    assert (ThreatModel(norm, eps).distance(x_adv, x) <= eps + 1e-5).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@pytest.mark.parametrize("kind", ["entropy", "confidence"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.3)])
def test_it_leaves_no_more_than_pgd_on_the_average(norm, eps, kind):
    policy = policy_for(kind)
    x, y, noise = sample(policy)
    ball = ThreatModel(norm, eps)
    average = PGD(Objective(CE(), Mean()), ball, 40, eps / 4)(NET, x, y, noise=noise)
    adaptive = Adaptive(ball, policy)(NET, x, y, noise=noise)
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
    x_adv = Adaptive(ThreatModel("Linf", eps), FixedExit(1))(net, x, y, noise=noise)
    assert torch.equal(~right(net, x_adv, y, FixedExit(1)), radius < eps)


@pytest.mark.parametrize("norm", NORMS)
def test_on_one_exit_it_is_no_weaker_than_pgd_on_the_margin(norm):
    net = small_convolutional(1)
    x, _, noise = batch(60, SHAPE, 5)
    y = net(x)[0].argmax(-1)
    ball = ThreatModel(norm, 0.2 if norm == "Linf" else 0.6)
    margin = PGD(Objective(Margin(), Only(1)), ball, 50, ball.eps / 4, restarts=2)(net, x, y, noise=noise)
    adaptive = Adaptive(ball, FixedExit(1), budget=100)(net, x, y, noise=noise)
    left = [int(right(net, x_adv, y, FixedExit(1)).sum()) for x_adv in (margin, adaptive)]
    assert left[1] <= left[0] < len(y)


@pytest.mark.parametrize("budget", [1, 7, 45, 130])
def test_the_budget_is_a_hard_bound_that_survivors_spend(budget):
    policy = policy_for()
    x, y, noise = sample(policy, 6)
    with counted(NET) as passes:
        Adaptive(ThreatModel("Linf", 0.0), policy, budget)(NET, x, y, noise=noise)
    assert passes.backwards == len(y) * budget


def test_a_budget_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1 gradient per image, got 0"):
        Adaptive(ThreatModel("Linf", 0.1), FixedExit(1), 0)


def test_survivors_alone_go_on():
    policy = policy_for()
    x, y, noise = sample(policy)
    with counted(NET) as passes:
        Adaptive(ThreatModel("Linf", 0.9), policy, 100)(NET, x, y, noise=noise)
    assert passes.backwards < len(y) * 100 / 3


@pytest.mark.parametrize("norm", NORMS)
def test_results_depend_neither_on_the_split_nor_on_the_order(norm):
    policy = policy_for()
    x, y, noise = sample(policy, 12)
    x = x.double()
    net = small_convolutional(3).double()
    attack = Adaptive(ThreatModel(norm, 0.05), policy, 150)
    whole = attack(net, x, y, noise=noise)
    for rows in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11], [11, 3, 7, 0]):
        part = attack(net, x[rows], y[rows], noise=Noise(noise.seed, tuple(noise.samples[row] for row in rows)))
        torch.testing.assert_close(part, whole[rows], atol=1e-9, rtol=0)


def test_only_samples_that_have_come_near_get_more_than_the_budget():
    policy = policy_for()
    x, y, noise = sample(policy)
    ball = ThreatModel("Linf", 0.02)
    alone = Adaptive(ball, policy, 40)
    left = right(NET, alone(NET, x, y, noise=noise), y, policy)
    search = Search(NET, ball, policy, x, y, 40)
    alone.softly(search, expected_failure, ball.start(x, noise, 0), warm=0.5, last=1 / 16)
    alone.softly(search, expected_margin, search.nearest, warm=0.3, last=1 / 16)
    assert not len(search.going()) or search.near()[search.going()].all()
    spent = []
    for attack in (alone, dataclasses.replace(alone, near_budget=90)):
        with counted(NET) as passes:
            found = attack(NET, x, y, noise=noise)
        spent.append(passes.backwards)
    near = int((left & search.near()).sum())
    assert 0 < near < int(left.sum()) and spent[0] < spent[1] <= spent[0] + 50 * near
    still = right(NET, found, y, policy)
    assert not (still & ~left).any(), "what the budget breaks alone is broken"
    assert torch.equal(still[left & ~search.near()], left[left & ~search.near()])


def test_a_worst_case_searches_near_samples_for_longer():
    policy, ball = policy_for(), ThreatModel("Linf", 0.02)
    assert Adaptive(ball, policy, 40).thorough == Adaptive(ball, policy, 40, near_budget=90)
    x, y, noise = sample(policy)
    worst = Cascade((Adaptive(ball, policy, 40),), policy)(NET, x, y, noise=noise)
    longer = Adaptive(ball, policy, 40, near_budget=90)(NET, x, y, noise=noise)
    assert torch.equal(right(NET, worst, y, policy), right(NET, longer, y, policy))


def test_near_samples_cannot_get_fewer_gradients():
    with pytest.raises(ValueError, match="at least 40"):
        Adaptive(ThreatModel("Linf", 0.02), policy_for(), 40, near_budget=39)


@settings(max_examples=4)
@given(st.integers(0, 1000))
def test_the_closest_iterate_only_gets_closer(seed):
    policy = policy_for()
    x, y, noise = sample(policy, 12)
    ball = ThreatModel("Linf", 0.04)
    search = Search(NET, ball, policy, x, y, budget=100)
    attack = Adaptive(ball, policy)
    for restart in range(3):
        before, broken = search.distances.amin(0), search.broken.clone()
        attack.at_exit(search, ball.start(x, Noise(seed, noise.samples), restart), torch.arange(12) % 3)
        assert (search.broken >= broken).all()
        assert ((search.distances.amin(0) <= before) | search.broken).all()
    torch.testing.assert_close(distance_to_failure(NET(search.nearest), y, policy), search.distances)
    assert torch.equal(search.broken, ~right(NET, search.nearest, y, policy))


def test_a_survivor_is_shown_with_an_exit_that_is_wrong_where_one_was_found():
    policy = policy_for()
    x, y, noise = sample(policy)
    ball = ThreatModel("Linf", 0.03)
    search = Search(NET, ball, policy, x, y, budget=60)
    Adaptive(ball, policy).softly(search, expected_margin, ball.start(x, noise, 0), warm=0.3, last=1 / 16)
    shown = (NET(search.candidates).argmax(-1) != y).any(0)
    assert torch.equal(shown, search.any_wrong) and bool((search.any_wrong & ~search.broken).any())


def test_starting_over_forgets_the_guide_and_keeps_the_candidates():
    policy = policy_for()
    x, y, noise = sample(policy)
    ball = ThreatModel("Linf", 0.03)
    search = Search(NET, ball, policy, x, y, budget=60)
    attack = Adaptive(ball, policy)
    attack.softly(search, expected_margin, ball.start(x, noise, 0), warm=0.3, last=1 / 16)
    broken, wrong = search.broken.clone(), search.any_wrong.clone()
    closest = distance_to_failure(NET(search.candidates), y, policy).amin(0)
    search.forget()
    assert search.distances[:, ~broken].isinf().all() and search.distances[:, broken].isfinite().all()
    attack.softly(search, expected_margin, x, warm=0.3, last=1 / 16)
    assert (search.broken >= broken).all()
    assert (distance_to_failure(NET(search.candidates), y, policy).amin(0) <= closest + 1e-5)[~broken & wrong].all()


@pytest.mark.parametrize("kind", ["entropy", "confidence"])
def test_saturated_gates_still_pull(kind):
    """With all probability on one class the entropy's gradient is zero in fp32; the search must shut the gate regardless."""
    net = linear_exits(2, n_classes=3, scale=60)
    x, _, noise = batch(30)
    y = net(x)[0].argmax(-1)
    net.heads[1].load_state_dict({k: -v for k, v in net.heads[0].state_dict().items()})  # wrong wherever it is reached
    policy = {"entropy": EntropyPolicy((0.01,)), "confidence": ConfidencePolicy((0.99,))}[kind]
    assert right(net, x, y, policy).float().mean() > 0.9
    x_adv = Adaptive(ThreatModel("Linf", 0.5), policy)(net, x, y, noise=noise)
    assert not right(net, x_adv, y, policy).any()


@given(st.floats(0, 300), st.integers(0, 2))
def test_log_entropy_holds_at_any_confidence_and_its_gradient_never_vanishes(gap, top):
    logits = torch.zeros(3)
    logits[top] = gap
    precise = logits.double()
    p = precise.softmax(-1)
    expected = torch.log(-(p * p.log()).sum())
    torch.testing.assert_close(log_entropy(logits).double(), expected, rtol=0, atol=1e-3 if gap < 8 else 0.1)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(log_entropy(logits), logits)
    assert torch.isfinite(gradient).all()
    if gap > 3:
        assert gradient[top] < -0.4 and gradient.sum().abs() < 1e-3


@pytest.mark.parametrize("end", [math.inf, -math.inf, 0.0])
def test_infinite_thresholds_have_a_finite_slack(end):
    logits = torch.randn(3, 5, 4)
    for policy in (EntropyPolicy((end, end)), ConfidencePolicy((end, end))):
        slack = policy.log_slack(logits[:1])
        assert torch.isfinite(slack).all() and ((slack > 0) == policy.leaves(logits[:1])).all()


def test_a_sample_wrong_from_the_start_costs_no_gradient():
    policy = policy_for()
    x, y, noise = sample(policy, 8)
    with counted(NET) as passes:
        x_adv = Adaptive(ThreatModel("Linf", 0.1), policy)(NET, x, (y + 1) % 5, noise=noise)
    assert passes.backwards == 0 and torch.equal(x_adv, x)

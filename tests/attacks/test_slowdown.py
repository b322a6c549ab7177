"""The slowdown attack against costs known in closed form, and properties of every run."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.attacks.slowdown import MODES, Slowdown
from exitbench.attacks.slowdown_loss import expected_cost, prediction_held, saved_shares, shut_gates, uniform_cross_entropy
from exitbench.models.calibration import equal_share
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, deployed_logits
from exitbench.models.within_reach import exits_within_reach
from exitbench.runner.passes import counted
from tests.toys import Passed, batch, small_convolutional

SHAPE = (1, 4, 4)
COSTS = (1.0, 2.5, 3.0)
NET = small_convolutional(3)
# A batch's size may change a convolution's last bit, and a sign step amplifies it where the gradient is all but zero.
PRECISE = small_convolutional(3).double()
KINDS = ["entropy", "confidence"]

modes = st.sampled_from(MODES)
kinds = st.sampled_from(KINDS)
balls = st.builds(ThreatModel, st.sampled_from(NORMS), st.floats(0, 0.4))


def policy_for(kind="entropy"):
    return equal_share(NET(batch(60, SHAPE, 5)[0]), kind)


def taken(net, x, policy):
    """The deployed prediction and the cost of the exit taken."""
    logits, exits = deployed_logits(net(x), policy)
    return logits.argmax(-1), torch.tensor(COSTS)[exits]


def sample(n=8, seed=1):
    x, y, noise = batch(n, SHAPE, 5, seed)
    return x, y, noise


def gate_and_final(weight, scale=1.0):
    """Two exits of two classes, the logit difference of the first ``scale * w . (x - 1/2)``; the last always says class 1."""
    gate = nn.Linear(4, 2)
    final = nn.Linear(4, 2)
    with torch.no_grad():
        gate.weight.copy_(torch.stack([-weight / 2, weight / 2]) * scale)
        gate.bias.copy_(torch.tensor([1.0, -1.0]) * scale * weight.sum() / 4)
        final.weight.zero_()
        final.bias.copy_(torch.tensor([-2.0, 2.0]))
    heads = [nn.Sequential(nn.Flatten(), layer) for layer in (gate, final)]
    return MultiExitNet([Passed(), Passed()], heads).eval().requires_grad_(False)


WEIGHT = torch.tensor([3.0, -2.0, 1.5, 2.5])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 60.0], ids=["plain", "saturated"])
def test_a_sample_is_delayed_exactly_where_its_linear_gate_can_be_shut(norm, scale):
    """With a confidence gate at ``sigmoid(d)`` an input stays iff ``|margin| <= d``; the ball moves it by ``eps * ||w||_dual``.

    Saturated, the confidence is 1 and the entropy 0 to the last bit, and neither has a gradient.
    """
    net = gate_and_final(WEIGHT, scale)
    x, y, noise = batch(60, n_classes=2)
    margin = (net(x)[0, :, 1] - net(x)[0, :, 0]).abs()
    stays = margin.median() / 8
    policy = ConfidencePolicy((torch.sigmoid(stays).item(),))
    reach = WEIGHT.norm(1 if norm == "Linf" else 2) * scale
    needed = ((margin - stays) / reach).clamp_min(0)
    middle = needed.sort().values
    eps = float(middle[29:31].mean())
    assert eps < 0.35 and middle[30] - middle[29] > 1e-5, "the box must not bind, and no sample be on the edge"
    x_adv = Slowdown(ThreatModel(norm, eps), policy, (1.0, 4.0), steps=60)(net, x, y, noise=noise)
    delayed = policy(net(x_adv)) == 1
    clear = (needed - eps).abs() > 0.02 * eps
    assert torch.equal(delayed[clear], (needed < eps)[clear])
    assert delayed.sum() > (policy(net(x)) == 1).sum()


def test_where_the_entropy_has_no_gradient_the_attack_still_delays():
    net = gate_and_final(WEIGHT, scale=4000.0)
    x, y, noise = batch(20, n_classes=2)
    policy = EntropyPolicy((0.05,))
    saturated = (net(x)[0, :, 1] - net(x)[0, :, 0]).abs() > 120
    x, y = x[saturated], y[saturated]
    noise = Noise(noise.seed, tuple(range(len(x))))
    inputs = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(policy.slack(net(inputs)[:1]).sum(), inputs)
    assert len(x) > 5 and not gradient.any(), "plain entropy must have no gradient at all"
    delayed = 0
    for eps in (0.0, 0.35):
        x_adv = Slowdown(ThreatModel("Linf", eps), policy, (1.0, 4.0), steps=200)(net, x, y, noise=noise)
        delayed = int((policy(net(x_adv)) == 1).sum())
        assert eps or not delayed
    assert delayed > 0


def test_keep_label_pays_only_where_the_prediction_survives():
    """The last exit always says class 1: an input of class 0 cannot be delayed and keep its prediction."""
    net = gate_and_final(WEIGHT, scale=5.0)
    x, y, noise = batch(40, n_classes=2)
    policy = ConfidencePolicy((0.6,))
    predicted = deployed_logits(net(x), policy)[0].argmax(-1)
    early = policy(net(x)) == 0
    ball = ThreatModel("Linf", 0.3)
    results = {mode: Slowdown(ball, policy, (1.0, 4.0), mode)(net, x, y, noise=noise) for mode in MODES}
    late = {mode: policy(net(x_adv)) == 1 for mode, x_adv in results.items()}
    assert late["free"].all()
    assert 0 < (early & (predicted == 0)).sum() < early.sum()
    assert torch.equal(late["keep_label"], ~early | (predicted == 1))
    kept = deployed_logits(net(results["keep_label"]), policy)[0].argmax(-1)
    assert torch.equal(kept, predicted)
    wrong = deployed_logits(net(results["double_kill"]), policy)[0].argmax(-1) != y
    assert torch.equal(late["double_kill"] & wrong, y == 0)


@settings(max_examples=20)
@given(modes, kinds, balls, st.integers(0, 50))
def test_candidates_are_in_ball_and_box_and_satisfy_their_mode(mode, kind, ball, seed):
    policy = policy_for(kind)
    x, y, noise = sample(seed=seed)
    x_adv = Slowdown(ball, policy, COSTS, mode, steps=6)(NET, x, y, noise=noise)
    assert (ball.distance(x_adv, x) <= ball.eps + 1e-5).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    (before, cost_before), (after, cost_after) = taken(NET, x, policy), taken(NET, x_adv, policy)
    if mode == "keep_label":
        assert torch.equal(before, after)
    if mode == "double_kill":
        unbroken = after == y
        assert torch.equal(x_adv[unbroken], x[unbroken])
        assert not (unbroken & (before != y)).any()
    else:
        assert (cost_after >= cost_before).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.4)])
def test_it_delays_no_less_than_deepsloth(norm, eps, kind):
    """DeepSloth sums the cross-entropy to the uniform distribution over all early exits."""
    policy = policy_for(kind)
    x, y, noise = sample(40)
    ball = ThreatModel(norm, eps)
    sloth = ball.start(x, noise, 0)
    for _ in range(30):
        sloth.requires_grad_()
        (gradient,) = torch.autograd.grad(uniform_cross_entropy(NET(sloth)[:-1]).sum(), sloth)
        sloth = ball.project(sloth.detach() - eps / 8 * ball.steepest(gradient), x)
    ours = Slowdown(ball, policy, COSTS)(NET, x, y, noise=noise)
    clean, theirs, mine = (float(taken(NET, images, policy)[1].mean()) for images in (x, sloth, ours))
    assert clean < mine and mine >= theirs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", [FixedExit(2), FixedExit(3), EntropyPolicy((math.inf, 0.4)), EntropyPolicy((-math.inf,) * 2)])
def test_where_no_input_can_change_the_exit_the_clean_images_come_back_at_no_cost(policy, mode):
    x, y, noise = sample()
    with counted(NET) as passes:
        x_adv = Slowdown(ThreatModel("Linf", 0.3), policy, COSTS, mode)(NET, x, y, noise=noise)
    assert torch.equal(x_adv, x) and passes.forwards == passes.backwards == 0


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (EntropyPolicy((0.5, 0.5)), [0, 1, 2]),
        (ConfidencePolicy((-math.inf, 0.5)), [0]),
        (EntropyPolicy((-math.inf, 0.5)), [1, 2]),
        (EntropyPolicy((0.5, math.inf)), [0, 1]),
        (FixedExit(1), [0]),
    ],
)
def test_exits_within_reach(policy, expected):
    assert exits_within_reach(policy, 3) == expected
    exits = set(policy(3 * torch.randn(3, 500, 4)).tolist())
    assert exits <= set(expected)


def test_samples_at_the_costliest_exit_within_reach_cost_no_gradient():
    x, y, noise = sample()
    for policy in (EntropyPolicy((1e-3, math.inf)), EntropyPolicy((1e-3, 1e-3))):
        for mode in ("free", "keep_label"):
            with counted(NET) as passes:
                x_adv = Slowdown(ThreatModel("Linf", 0.1), policy, COSTS, mode)(NET, x, y, noise=noise)
            assert passes.backwards == 0 and torch.equal(x_adv, x)


def test_survivors_alone_go_on():
    x, y, noise = sample(40)
    policy = policy_for()
    early = int((policy(NET(x)) < 2).sum())
    with counted(NET) as none_delayed:
        Slowdown(ThreatModel("Linf", 0.0), policy, COSTS)(NET, x, y, noise=noise)
    with counted(NET) as delayed:
        Slowdown(ThreatModel("Linf", 0.3), policy, COSTS)(NET, x, y, noise=noise)
    assert none_delayed.backwards == early * 2 * 25
    assert delayed.backwards < none_delayed.backwards / 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("norm", "kind"), [("Linf", "entropy"), ("L2", "confidence")])
def test_results_depend_neither_on_split_nor_on_order_and_come_again(norm, mode, kind):
    policy = policy_for(kind)
    x, y, noise = sample(12)
    x = x.double()
    attack = Slowdown(ThreatModel(norm, 0.08), policy, COSTS, mode, steps=8, cycles=2)
    whole = attack(PRECISE, x, y, noise=noise)
    assert torch.equal(attack(PRECISE, x, y, noise=noise), whole)
    parts = [attack(PRECISE, x[s], y[s], noise=Noise(noise.seed, noise.samples[s])) for s in (slice(0, 5), slice(5, 12))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-9)
    order = torch.randperm(12)
    shuffled = attack(PRECISE, x[order], y[order], noise=Noise(noise.seed, tuple(order.tolist())))
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-9)


def test_inputs_are_left_alone():
    x, y, noise = sample()
    before = x.clone(), y.clone()
    Slowdown(ThreatModel("Linf", 0.1), policy_for(), COSTS, "double_kill")(NET, x, y, noise=noise)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"costs": ()}, "cost of every exit"),
        ({"costs": (1.0, math.nan, 3.0)}, "cost of every exit"),
        ({"costs": (1.0, 2.0)}, "needs 1 thresholds"),
        ({"mode": "fast"}, "'fast' is not one of free, keep_label, double_kill"),
    ],
)
def test_what_makes_no_attack_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Slowdown(**{"region": ThreatModel("Linf", 0.1), "policy": EntropyPolicy((0.5, 0.5)), "costs": COSTS, **fields})


logits_of = st.integers(0, 10_000).map(lambda seed: 3 * torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(seed)))
SHARES = torch.tensor(COSTS) / COSTS[-1]


@given(logits_of)
def test_uniform_cross_entropy_is_that(logits):
    uniform = torch.full_like(logits, 1 / 6)
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), uniform.flatten(0, 1), reduction="none").view(3, 9)
    torch.testing.assert_close(uniform_cross_entropy(logits), expected, atol=1e-5, rtol=1e-5)
    assert (uniform_cross_entropy(logits) >= math.log(6) - 1e-5).all()


@given(logits_of, st.floats(0.1, 1.5), st.floats(0.1, 1.5))
def test_expected_cost_hardens_into_the_cost_of_the_exit_taken(logits, first, second):
    policy = EntropyPolicy((first, second))
    clear = torch.stack([policy.slack(logits[: k + 1]).abs() > 1e-3 for k in range(2)]).all(0)
    hard = expected_cost(logits, policy, SHARES, 1e-5)
    torch.testing.assert_close(hard[clear], SHARES[policy(logits)][clear], atol=1e-4, rtol=0)
    soft = expected_cost(logits, policy, SHARES, 0.5)
    assert ((soft > SHARES[0] - 1e-6) & (soft < 1 + 1e-6)).all()


def test_gates_that_are_shut_do_not_pull():
    logits = torch.zeros(3, 4, 5, requires_grad=True)
    values = shut_gates(logits, EntropyPolicy((0.5, 0.5)), saved_shares(EntropyPolicy((0.5, 0.5)), SHARES))
    assert not values.any() and not torch.autograd.grad(values.sum(), logits)[0].any()


def test_the_constraint_is_positive_where_the_prediction_is_as_wanted():
    logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]).expand(3, 2, 3)
    label = torch.zeros(2, dtype=torch.int64)
    to, off = (
        prediction_held(logits, label, EntropyPolicy((0.5, 0.5)), to_label=kept, temperature=0.1) for kept in (True, False)
    )
    assert to[0] > 0 > to[1] and off[1] > 0 > off[0]

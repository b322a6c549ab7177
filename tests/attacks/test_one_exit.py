import pytest
import torch

from exitbench.attacks.apgd import APGD
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Margin, Objective, Only
from exitbench.attacks.one_exit import AdaptiveAtOneExit
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.models.policies import FixedExit, deployed_logits
from exitbench.runner.passes import counted
from tests.toys import batch, linear_exits, small_convolutional

NET = small_convolutional(3)
RULE = FixedExit(1)


def images(n=12):
    """Images, labels that the exit gives them, and noise."""
    x, _, noise = batch(n, (1, 4, 4), 5)
    return x, NET(x)[0].argmax(-1), noise


def broken(net, x, y, rule=RULE):
    return deployed_logits(net(x), rule)[0].argmax(-1) != y


@pytest.mark.parametrize("n_classes", [2, 5])
def test_an_affine_exit_is_flipped_exactly_where_it_can_be(n_classes):
    """In the ball and the box a wrong class's lead is largest where each pixel has moved with its weight as far as it may."""
    net = linear_exits(1, n_classes=n_classes)
    x, _, noise = batch(40)
    logits = net(x)[0]
    y = logits.argmax(-1)
    weights = net.heads[0][1].weight
    apart = (weights - weights[y][:, None]).unflatten(-1, x.shape[1:])  # (B, C, ...)

    def can_be_flipped(eps):
        moved = (x[:, None] + eps * apart.sign()).clamp(0, 1) - x[:, None]
        return (logits - logits.gather(1, y[:, None]) + (apart * moved).flatten(2).sum(-1) > 0).any(1)

    eps = next(eps for eps in (0.01 * step for step in range(100)) if can_be_flipped(eps).float().mean() > 0.4)
    can = can_be_flipped(eps)
    x_adv = AdaptiveAtOneExit(ThreatModel("Linf", eps), FixedExit(1), 300)(net, x, y, noise=noise)
    assert torch.equal(broken(net, x_adv, y, FixedExit(1)), can) and can.any() and not can.all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_no_weaker_than_apgd_on_the_margin(norm):
    x, y, noise = images(60)
    ball = ThreatModel(norm, 0.02 if norm == "Linf" else 0.06)
    apgd = APGD(Objective(Margin(), Only(1)), ball)(NET, x, y, noise=noise)
    found = AdaptiveAtOneExit(ball, RULE)(NET, x, y, noise=noise)
    assert int(broken(NET, found, y).sum()) >= int(broken(NET, apgd, y).sum()) > 0


@pytest.mark.parametrize("budget", [1, 20, 45, 130])
def test_the_budget_is_a_hard_bound_that_survivors_spend(budget):
    x, y, noise = images(6)
    with counted(NET) as passes:
        AdaptiveAtOneExit(ThreatModel("Linf", 0.0), RULE, budget)(NET, x, y, noise=noise)
    assert passes.backwards == len(y) * budget


def test_what_a_budget_breaks_a_larger_one_breaks_by_the_same_image():
    x, y, noise = images(40)
    ball = ThreatModel("Linf", 0.02)
    small, large = (AdaptiveAtOneExit(ball, RULE, budget)(NET, x, y, noise=noise) for budget in (30, 200))
    rows = broken(NET, small, y)
    assert rows.any() and not rows.all() and torch.equal(small[rows], large[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_results_depend_neither_on_the_split_nor_on_the_order(norm):
    x, y, noise = images()
    x, net = x.double(), small_convolutional(3).double()
    attack = AdaptiveAtOneExit(ThreatModel(norm, 0.05), RULE, 150)
    whole = attack(net, x, y, noise=noise)
    for rows in ([0, 1, 2, 3, 4], [11, 3, 7, 0]):
        part = attack(net, x[rows], y[rows], noise=Noise(noise.seed, tuple(noise.samples[row] for row in rows)))
        torch.testing.assert_close(part, whole[rows], atol=1e-9, rtol=0)


def test_a_budget_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1 gradient per image, got 0"):
        AdaptiveAtOneExit(ThreatModel("Linf", 0.1), RULE, 0)


def test_on_the_network_itself_it_searches_for_longer():
    attack = AdaptiveAtOneExit(ThreatModel("Linf", 0.0), RULE, 30)
    x, y, noise = images(3)
    with counted(NET) as passes:
        attack.again(NET, x, y, noise=noise)
    assert passes.backwards == 3 * (30 + 9 * 101)

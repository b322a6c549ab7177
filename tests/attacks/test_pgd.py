"""PGD against closed-form optima, and properties of every run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.attacks.gradient import value
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, DLR, Margin, Max, Mean, Objective, Only
from exitbench.attacks.pgd import PGD, fgsm
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.models.views import ExitView
from tests.toys import SHAPE, batch, linear_exits, small_convolutional

EPS = {"Linf": 0.1, "L2": 0.15}
DUAL = {"Linf": 1, "L2": 2}  # order of the dual norm


def difference_of_weights(net, y, over):
    """For two classes: the weight ``(B, pixels)`` of the margin that ``over`` ascends."""
    by_exit = torch.stack([head[1].weight for head in net.heads])  # (K, 2, pixels)
    difference = by_exit[:, 1] - by_exit[:, 0]  # margin of class 1 over class 0
    reduced = difference[over.exit - 1] if isinstance(over, Only) else difference.mean(0)
    return torch.where(y[:, None] == 0, reduced, -reduced)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("over", [Only(1), Only(3), Mean()], ids=repr)
@pytest.mark.parametrize("keep", ["best", "last"])
def test_pgd_hits_the_optimum_of_a_linear_multi_exit_net(norm, over, keep):
    """The largest margin of an affine exit in a ball is ``m(x) + eps * ||w||_dual``."""
    net = linear_exits(3, n_classes=2)
    x, y, noise = batch(8, n_classes=2)
    objective, ball = Objective(Margin(), over), ThreatModel(norm, EPS[norm])
    x_adv = PGD(objective, ball, steps=30, step_size=EPS[norm] / 3, keep=keep)(net, x, y, noise=noise)
    gain = EPS[norm] * difference_of_weights(net, y, over).norm(DUAL[norm], dim=1)
    torch.testing.assert_close(value(net, objective, x_adv, y), value(net, objective, x, y) + gain, atol=1e-5, rtol=1e-5)


def test_fgsm_is_optimal_on_a_linear_exit_and_stays_in_the_ball():
    net = linear_exits(2, n_classes=2)
    x, y, noise = batch(8, n_classes=2)
    objective, ball = Objective(Margin(), Only(2)), ThreatModel("Linf", 0.1)
    for start in ("clean", "random"):
        x_adv = fgsm(objective, ball, start)(net, x, y, noise=noise)
        assert ball.distance(x_adv, x).max() <= 0.1 + 1e-6
    gain = 0.1 * difference_of_weights(net, y, Only(2)).norm(1, dim=1)
    x_adv = fgsm(objective, ball)(net, x, y, noise=noise)
    torch.testing.assert_close(value(net, objective, x_adv, y), value(net, objective, x, y) + gain)


losses = st.sampled_from([CE(), Margin(), DLR()])
reductions = st.sampled_from([Only(1), Only(2), Mean(), Max()])
attacks = st.builds(
    PGD,
    objective=st.builds(Objective, losses, reductions),
    region=st.builds(ThreatModel, st.sampled_from(NORMS), st.floats(0, 0.5)),
    steps=st.integers(1, 5),
    step_size=st.floats(0, 0.3),
    keep=st.sampled_from(["best", "last"]),
    start=st.sampled_from(["random", "clean"]),
)
NET = small_convolutional(3)
# The batch size may change the last bit of a convolution, and a sign step amplifies it where the gradient is almost zero;
# in double precision the effect is negligible.
PRECISE = small_convolutional(3).double()


def sample(seed=1, n=6):
    return batch(n, shape=(1, 4, 4), n_classes=5, seed=seed)


@given(attacks, st.integers(0, 1000))
def test_candidates_are_in_ball_and_box(attack, seed):
    x, y, noise = sample(seed)
    x_adv = attack(NET, x, y, noise=noise)
    assert (attack.region.distance(x_adv, x) <= attack.region.eps + 1e-6).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@given(attacks.filter(lambda a: a.keep == "best" and a.start == "clean"), st.integers(0, 1000))
def test_keeping_the_best_never_lowers_the_objective(attack, seed):
    x, y, noise = sample(seed)
    after = value(NET, attack.objective, attack(NET, x, y, noise=noise), y)
    assert (after >= value(NET, attack.objective, x, y)).all()


@given(attacks, st.integers(1, 5))
def test_results_do_not_depend_on_how_the_batch_is_split(attack, cut):
    x, y, noise = sample()
    x = x.double()
    whole = attack(PRECISE, x, y, noise=noise)
    first = attack(PRECISE, x[:cut], y[:cut], noise=Noise(noise.seed, noise.samples[:cut]))
    second = attack(PRECISE, x[cut:], y[cut:], noise=Noise(noise.seed, noise.samples[cut:]))
    torch.testing.assert_close(torch.cat([first, second]), whole, atol=1e-5, rtol=0)


@given(attacks, st.permutations(range(6)))
def test_results_do_not_depend_on_the_order_of_the_batch(attack, order):
    x, y, noise = sample()
    x = x.double()
    rows = torch.tensor(order)
    shuffled = attack(PRECISE, x[rows], y[rows], noise=Noise(noise.seed, tuple(noise.samples[i] for i in order)))
    torch.testing.assert_close(shuffled, attack(PRECISE, x, y, noise=noise)[rows], atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(st.integers(1, 4))
def test_more_restarts_are_never_worse(restarts):
    x, y, noise = sample()
    objective, ball = Objective(CE(), Mean()), ThreatModel("Linf", 0.2)
    fewer = PGD(objective, ball, 2, 0.05, restarts=restarts)(NET, x, y, noise=noise)
    more = PGD(objective, ball, 2, 0.05, restarts=restarts + 1)(NET, x, y, noise=noise)
    assert (value(NET, objective, more, y) >= value(NET, objective, fewer, y)).all()


@pytest.mark.parametrize("over", [Mean(), Max()], ids=repr)
def test_on_one_exit_every_form_is_plain_pgd(over):
    net = small_convolutional(1)
    x, y, noise = sample()
    plain = PGD(Objective(CE(), Only(1)), ThreatModel("Linf", 0.2), 5, 0.05)
    form = PGD(Objective(CE(), over), ThreatModel("Linf", 0.2), 5, 0.05)
    assert torch.equal(form(net, x, y, noise=noise), plain(net, x, y, noise=noise))


def test_plain_pgd_is_torchattacks_pgd():
    """From the clean image, keeping the last iterate: image for image what torchattacks computes."""
    import torchattacks

    x, y, noise = sample()
    for k in (1, 3):
        theirs = torchattacks.PGD(ExitView(NET, k), eps=0.2, alpha=0.05, steps=7, random_start=False)(x, y)
        ours = PGD(Objective(CE(), Only(k)), ThreatModel("Linf", 0.2), 7, 0.05, keep="last", start="clean")
        torch.testing.assert_close(ours(NET, x, y, noise=noise), theirs, atol=1e-6, rtol=0)


def test_an_attack_can_start_from_anothers_result():
    x, y, noise = sample()
    first = PGD(Objective(CE(), Only(1)), ThreatModel("Linf", 0.2), 3, 0.05)
    objective = Objective(CE(), Only(1))
    chained = PGD(objective, ThreatModel("Linf", 0.2), 3, 0.05, start=first)
    before = value(NET, objective, first(NET, x, y, noise=noise), y)
    assert (value(NET, objective, chained(NET, x, y, noise=noise), y) >= before).all()


@pytest.mark.parametrize("bad", [{"steps": 0}, {"restarts": 0}, {"restarts": 2, "start": "clean"}])
def test_settings_without_meaning_are_refused(bad):
    arguments = {"steps": 3, "step_size": 0.1, **bad}
    with pytest.raises(ValueError, match=r"at least one|restarts"):
        PGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.1), **arguments)


def test_a_nan_objective_is_shown_not_hidden():
    net = linear_exits(1, shape=SHAPE)
    net.heads[0][1].bias.fill_(float("nan"))
    x, y, noise = batch()
    x_adv = PGD(Objective(CE(), Only(1)), ThreatModel("Linf", 0.1), 2, 0.05)(net, x, y, noise=noise)
    assert not torch.equal(x_adv, x)

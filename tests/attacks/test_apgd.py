"""Auto-PGD against closed-form optima, properties of every run, and the original implementation, sample by sample."""

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.attacks.apgd import APGD, APGDTargeted, _windows
from exitbench.attacks.gradient import value
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, DLR, Margin, Max, Mean, Objective, Only, TargetedDLR
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.views import ExitView
from tests.attacks.test_pgd import DUAL, EPS, NET, PRECISE, difference_of_weights, sample
from tests.bench.trained import digits, trained
from tests.toys import batch, linear_exits, small_convolutional


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("over", [Only(1), Only(3), Mean()], ids=repr)
def test_apgd_hits_the_optimum_of_a_linear_multi_exit_net(norm, over):
    """The largest margin of an affine exit in a ball is ``m(x) + eps * ||w||_dual``."""
    net = linear_exits(3, n_classes=2)
    x, y, noise = batch(8, n_classes=2)
    objective, ball = Objective(Margin(), over), ThreatModel(norm, EPS[norm])
    x_adv = APGD(objective, ball, steps=40)(net, x, y, noise=noise)
    gain = EPS[norm] * difference_of_weights(net, y, over).norm(DUAL[norm], dim=1)
    torch.testing.assert_close(value(net, objective, x_adv, y), value(net, objective, x, y) + gain, atol=1e-5, rtol=1e-5)


reductions = st.sampled_from([Only(1), Only(2), Mean(), Max()])
regions = st.builds(ThreatModel, st.sampled_from(NORMS), st.floats(0, 0.5))
starts = st.sampled_from(["random", "clean"])
untargeted = st.builds(
    APGD,
    objective=st.builds(Objective, st.sampled_from([CE(), Margin(), DLR()]), reductions),
    region=regions,
    steps=st.integers(1, 7),
    start=starts,
)
targeted = st.builds(APGDTargeted, reductions, regions, steps=st.integers(1, 4), n_targets=st.integers(1, 6), start=starts)
attacks = untargeted | targeted


@given(attacks, st.integers(0, 1000))
def test_candidates_are_in_ball_and_box(attack, seed):
    x, y, noise = sample(seed)
    x_adv = attack(NET, x, y, noise=noise)
    assert (attack.region.distance(x_adv, x) <= attack.region.eps + 1e-6).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@given(attacks, st.integers(1, 5))
def test_results_do_not_depend_on_how_the_batch_is_split(attack, cut):
    x, y, noise = sample()
    x = x.double()
    whole = attack(PRECISE, x, y, noise=noise)
    parts = [attack(PRECISE, x[s], y[s], noise=Noise(noise.seed, noise.samples[s])) for s in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


@given(attacks, st.permutations(range(6)))
def test_results_do_not_depend_on_the_order_of_the_batch(attack, order):
    x, y, noise = sample()
    x, rows = x.double(), torch.tensor(order)
    shuffled = attack(PRECISE, x[rows], y[rows], noise=noise.of(rows))
    torch.testing.assert_close(shuffled, attack(PRECISE, x, y, noise=noise)[rows], atol=1e-5, rtol=0)


@given(untargeted.filter(lambda a: a.start == "clean"), st.integers(0, 1000))
def test_keeping_the_best_never_lowers_the_objective_unless_it_fools(attack, seed):
    x, y, noise = sample(seed)
    x_adv = attack(NET, x, y, noise=noise)
    with torch.no_grad():
        fooled_before, fooled = (attack.objective.fools(NET(each), y) for each in (x, x_adv))
    assert (fooled | ~fooled_before).all()
    higher = value(NET, attack.objective, x_adv, y) >= value(NET, attack.objective, x, y)
    assert (higher | (fooled & ~fooled_before)).all()


@given(st.integers(1, 12), st.integers(0, 1000))
def test_more_restarts_never_fool_fewer(steps, seed):
    x, y, noise = sample(seed)
    objective, ball = Objective(Margin(), Mean()), ThreatModel("Linf", 0.1)
    fooled = [
        objective.fools(NET(APGD(objective, ball, steps, restarts=restarts)(NET, x, y, noise=noise)), y) for restarts in (1, 3)
    ]
    assert (fooled[1] >= fooled[0]).all()


@pytest.mark.parametrize("over", [Mean(), Max()], ids=repr)
def test_on_one_exit_every_form_is_the_plain_attack(over):
    net = small_convolutional(1)
    x, y, noise = sample()
    ball = ThreatModel("Linf", 0.2)
    for make in (lambda o: APGD(Objective(CE(), o), ball, 9), lambda o: APGDTargeted(o, ball, 5)):
        assert torch.equal(make(over)(net, x, y, noise=noise), make(Only(1))(net, x, y, noise=noise))


def test_checkpoints_are_those_of_the_paper():
    """Section 3.1: at 0, 0.22, 0.41, 0.57, ... of 100 steps."""
    at, windows = [], _windows(100)
    while sum(at[-1:]) < 100:
        at.append(sum(at[-1:]) + next(windows))
    assert at == [22, 41, 57, 70, 80, 87, 93, 99, 105]


def test_targets_are_the_nearest_wrong_classes_in_order():
    logits = torch.tensor([[[5.0, 1.0, 4.0, 3.0, 2.0]], [[5.0, 9.0, 0.0, 3.0, 2.0]]])  # two exits, one sample
    y = torch.tensor([0])
    assert APGDTargeted(Only(1), ThreatModel("Linf", 0.1))._ranked(logits[:1], y).tolist() == [[2, 3, 4, 1]]
    assert APGDTargeted(Mean(), ThreatModel("Linf", 0.1))._ranked(logits, y).tolist() == [[1, 3, 2, 4]]


def test_targeted_dlr_is_the_papers_equation():
    logits = torch.tensor([[[4.0, 3.0, 2.0, 1.0, 0.0]]])
    found = TargetedDLR()(logits, torch.tensor([0]), torch.tensor([2]))
    assert found.item() == pytest.approx((2.0 - 4.0) / (4.0 - (2.0 + 1.0) / 2))


def test_the_targeted_loss_needs_four_classes_and_a_target():
    net = linear_exits(1, n_classes=3)
    x, y, noise = batch(2)
    with pytest.raises(ValueError, match="at least 4 classes, the model has 3"):
        APGDTargeted(Only(1), ThreatModel("Linf", 0.1))(net, x, y, noise=noise)
    with pytest.raises(ValueError, match="needs target classes"):
        Objective(TargetedDLR(), Mean())(torch.zeros(1, 1, 5), y[:1])


@pytest.mark.parametrize("bad", [{"steps": 0}, {"restarts": 0}, {"restarts": 2, "start": "clean"}])
def test_settings_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=r"at least one|restarts"):
        APGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.1), **bad)


def test_it_starts_from_anothers_result():
    x, y, noise = sample()
    objective = Objective(CE(), Only(1))
    first = PGD(objective, ThreatModel("Linf", 0.2), 3, 0.05)
    before = value(NET, objective, first(NET, x, y, noise=noise), y)
    assert (
        value(NET, objective, APGD(objective, ThreatModel("Linf", 0.2), 5, start=first)(NET, x, y, noise=noise), y) >= before
    ).all()


def test_a_nan_objective_is_shown_not_hidden():
    net = linear_exits(1)
    net.heads[0][1].bias.fill_(float("nan"))
    x, y, noise = batch()
    assert not torch.equal(APGD(Objective(CE(), Only(1)), ThreatModel("Linf", 0.1), 2)(net, x, y, noise=noise), x)


@cache
def one_exit_digits():
    """A small trained network with one exit, 500 digits, and which it gets right."""
    net = trained()[0]
    net = MultiExitNet(net.stages[:1], net.heads[:1]).eval().requires_grad_(False)
    whole = digits().batch(len(digits()) - 500, len(digits()))
    with torch.no_grad():
        right = ExitView(net, 1)(whole.x).argmax(1) == whole.y
    return net, whole.x, whole.y, right


@pytest.mark.parametrize(
    ("norm", "eps", "loss"), [("Linf", 0.2, "ce"), ("Linf", 0.2, "dlr-targeted"), ("L2", 0.6, "ce"), ("L2", 0.6, "dlr")]
)
def test_it_breaks_whom_the_original_breaks(norm, eps, loss):
    """500 images, two seeds, pyautoattack's APGD beside ours on one exit: paired, not only by totals.

    Two runs of the original differ by their seeds; ours may differ from it by no more than that, give or take what
    so few samples can tell (three standard deviations of a sign test, and one image).
    """
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    net, x, y, right = one_exit_digits()
    view, ball, steps, targets = ExitView(net, 1), ThreatModel(norm, eps), 12, 2
    attack = {
        "ce": APGD(Objective(CE(), Only(1)), ball, steps),
        "dlr": APGD(Objective(DLR(), Only(1)), ball, steps),
        "dlr-targeted": APGDTargeted(Only(1), ball, steps, targets),
    }[loss]
    ours, theirs = [], []
    for seed in (0, 1):
        x_adv = attack(net, x, y, noise=Noise(seed, tuple(range(len(x)))))
        if loss == "dlr-targeted":
            original = APGDAttack_targeted(
                view, n_iter=steps, norm=norm, eps=eps, seed=seed, n_target_classes=targets, device="cpu"
            )
        else:
            original = APGDAttack(view, n_iter=steps, norm=norm, eps=eps, seed=seed, loss=loss, device="cpu")
        with torch.random.fork_rng():
            x_theirs = original.perturb(x, y)
        with torch.no_grad():
            ours.append(right & (view(x_adv).argmax(1) == y))
            theirs.append(right & (view(x_theirs).argmax(1) == y))
    for mine, original in zip(ours, theirs, strict=True):
        assert 0.05 < original.float().mean() < 0.95, "the comparison means nothing where nothing or everything breaks"
        only_mine, only_original = int((original & ~mine).sum()), int((mine & ~original).sum())
        assert abs(only_mine - only_original) <= 3 * (only_mine + only_original) ** 0.5 + 1
        seeds = int((theirs[0] ^ theirs[1]).sum()) + int((ours[0] ^ ours[1]).sum())
        assert only_mine + only_original <= 2 * seeds + 5
    means = [torch.stack(runs).float().mean() for runs in (ours, theirs)]
    assert abs(means[0] - means[1]) < 0.012

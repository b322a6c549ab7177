"""WRM against its closed form, and per sample."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.attacks.gradient import value
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Margin, Max, Mean, Objective, Only
from exitbench.attacks.regions import Penalty
from exitbench.attacks.wrm import WRM
from exitbench.runner.passes import counted
from tests.attacks.test_pgd import NET, PRECISE, difference_of_weights, sample
from tests.toys import batch, linear_exits


@pytest.mark.parametrize("over", [Only(1), Mean()], ids=repr)
@pytest.mark.parametrize("gamma", [0.3, 2.0, 50.0])
def test_it_is_exact_on_a_linear_loss(over, gamma):
    """``w.d - gamma |d|^2`` in the box is largest at ``d = w / (2 gamma)``, clipped coordinate by coordinate."""
    net = linear_exits(3, n_classes=2)
    x, y, noise = batch(8, n_classes=2)
    x_adv = WRM(Objective(Margin(), over), Penalty(gamma), steps=3)(net, x, y, noise=noise)
    weight = difference_of_weights(net, y, over).view_as(x)
    torch.testing.assert_close(x_adv, (x + weight / (2 * gamma)).clamp(0, 1))


attacks = st.builds(
    WRM,
    objective=st.builds(Objective, st.sampled_from([CE(), Margin()]), st.sampled_from([Only(2), Mean(), Max()])),
    region=st.builds(Penalty, st.floats(0.01, 10)),
    steps=st.integers(1, 6),
)


@given(attacks, st.integers(0, 1000))
def test_what_it_returns_is_worth_its_price_and_lies_in_the_box(attack, seed):
    x, y, noise = sample(seed)
    x_adv = attack(NET, x, y, noise=noise)
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    gain = value(NET, attack.objective, x_adv, y) - value(NET, attack.objective, x, y)
    assert (gain >= attack.region.cost(x_adv, x) - 1e-5).all()


@given(attacks, st.integers(1, 5))
def test_it_is_per_sample(attack, cut):
    x, y, noise = sample()
    x = x.double()
    whole = attack(PRECISE, x, y, noise=noise)
    parts = [attack(PRECISE, x[s], y[s], noise=Noise(noise.seed, noise.samples[s])) for s in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)
    flipped = attack(PRECISE, x.flip(0), y.flip(0), noise=noise)
    torch.testing.assert_close(flipped.flip(0), whole, atol=1e-5, rtol=0)


@given(attacks)
def test_dearer_distance_is_not_farther(attack):
    """A larger gamma never reaches a larger product of gain and distance: at the optimum distance falls with gamma."""
    net = linear_exits(3, n_classes=2)
    x, y, noise = batch(8, n_classes=2)
    objective = Objective(Margin(), Mean())
    near, far = (
        (WRM(objective, Penalty(gamma), attack.steps)(net, x, y, noise=noise) - x).flatten(1).norm(dim=1)
        for gamma in (2 * attack.region.gamma, attack.region.gamma)
    )
    assert (near <= far + 1e-6).all()


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_price_without_meaning_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma"):
        Penalty(gamma)


def test_a_nan_objective_is_shown_not_hidden():
    net = linear_exits(1)
    net.heads[0][1].weight.fill_(float("nan"))
    x, y, noise = batch()
    assert torch.isnan(WRM(Objective(CE(), Only(1)), Penalty(1.0), 2)(net, x, y, noise=noise)).any()


def test_a_step_is_a_gradient():
    x, y, noise = batch()
    net = linear_exits(2)
    with counted(net) as passes:
        WRM(Objective(CE(), Mean()), Penalty(1.0), 3)(net, x, y, noise=noise)
    assert passes.backwards == 3 * len(x)

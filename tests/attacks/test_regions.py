import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import NORMS, ThreatModel

balls = st.builds(ThreatModel, st.sampled_from(NORMS), st.floats(0, 2))
seeds = st.integers(0, 10_000)


def images(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 1, 3, 3, generator=generator)
    return x, x + spread * torch.randn(x.shape, generator=generator)


def inside(ball, x_adv, x):
    return bool((ball.distance(x_adv, x) <= ball.eps + 1e-6).all() and x_adv.min() >= 0 and x_adv.max() <= 1)


@given(balls, seeds, st.floats(0, 3))
def test_projection_lands_in_ball_and_box_and_is_idempotent(ball, seed, spread):
    x, x_adv = images(seed, spread)
    once = ball.project(x_adv, x)
    assert inside(ball, once, x)
    torch.testing.assert_close(ball.project(once, x), once, atol=1e-6, rtol=0)


@given(balls, seeds)
def test_projection_leaves_what_is_inside_alone(ball, seed):
    x, _ = images(seed, 0)
    delta = ThreatModel(ball.norm, 0.9 * ball.eps).project(torch.rand_like(x), x)
    torch.testing.assert_close(ball.project(delta, x), delta, atol=1e-6, rtol=0)


@given(balls, seeds, st.integers(0, 3))
def test_a_random_start_is_inside(ball, seed, restart):
    x, _ = images(seed, 0)
    assert inside(ball, ball.start(x, Noise(seed, (0, 1, 2, 3)), restart), x)


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball(norm):
    x = torch.full((200, 1, 2, 2), 0.5)
    ball = ThreatModel(norm, 0.3)
    distance = ball.distance(ball.start(x, Noise(0, tuple(range(200))), 0), x)
    # In d = 4 the median radius of a uniform point is eps * 0.5^(1/4).
    assert distance.median().item() == pytest.approx(0.3 * 0.5**0.25, rel=0.05)


@given(seeds)
def test_steepest_is_a_unit_step_along_the_gradient(seed):
    _, gradient = images(seed, 1)
    assert torch.equal(ThreatModel("Linf", 1).steepest(gradient), gradient.sign())
    unit = ThreatModel("L2", 1).steepest(gradient)
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(4))
    torch.testing.assert_close((unit * gradient).flatten(1).sum(1), gradient.flatten(1).norm(dim=1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-44, 1e30])
def test_the_size_of_a_gradient_does_not_matter(norm, scale):
    """A saturated loss has gradients whose squares vanish in fp32; a step of zero would look like robustness."""
    gradient = torch.tensor([[[[3.0, -4.0]]]])
    torch.testing.assert_close(
        ThreatModel(norm, 1).steepest(scale * gradient), ThreatModel(norm, 1).steepest(gradient), atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_is_no_step(norm):
    assert (ThreatModel(norm, 1).steepest(torch.zeros(2, 1, 2, 2)) == 0).all()


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_a_radius_that_is_none_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be a finite number >= 0"):
        ThreatModel("Linf", eps)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="Linf, L2"):
        ThreatModel("L7", 0.1)

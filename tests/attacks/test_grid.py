"""On a grid of pixel values, attacks find the worst image that enumeration finds, and return nothing off the grid or the ball."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.apgd import APGD
from exitbench.attacks.base import region_of
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Margin, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import NORMS, Penalty, ThreatModel
from exitbench.attacks.wrm import WRM
from exitbench.models.errors import InvalidValue
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.on_grid import OnGrid, nearest, on_grid
from exitbench.models.policies import EntropyPolicy, FixedExit, deployed_logits
from exitbench.models.spec import describe
from exitbench.store.cell import TOLERANCE
from tests.toys import Passed, batch, linear_exits

grids = st.sampled_from([1, 4, 16, 255, 1000, 65535])
seeds = st.integers(0, 10_000)


def images(seed, grid, on):
    generator = torch.Generator().manual_seed(seed)
    x, other = torch.rand(4, 2, 3, 3, generator=generator), torch.rand(4, 2, 3, 3, generator=generator)
    return (nearest(x, grid) if on else x), other


def is_on(images, grid):
    return images.double() == ((images.double() * grid).round() / grid).float().double()


def holds(ball, found, x):
    """Whether images lie on the grid and in the ball; the clean image stands where no image does."""
    stands = (found == x).flatten(1).all(1)
    return bool(
        (is_on(found, ball.grid).flatten(1).all(1) | stands).all()
        and (ball.distance(found, x) <= ball.eps + TOLERANCE[ball.norm]).all()
    )


@given(st.sampled_from(NORMS), st.floats(0, 1.5), grids, seeds, st.booleans())
def test_what_is_judged_lies_on_the_grid_and_in_the_ball(norm, eps, grid, seed, on):
    ball = ThreatModel(norm, eps, grid)
    x, other = images(seed, grid, on)
    found = ball.onto_grid(other, x)
    assert holds(ball, found, x)
    assert torch.equal(ball.onto_grid(found, x), found)
    some = (ball.distance(nearest(x, grid), x) <= eps).view(-1, 1, 1, 1).expand_as(x)
    assert is_on(found, grid)[some].all(), "there is an image of the grid, and the clean image stands"


@given(st.floats(0, 1), grids, seeds, st.booleans())
def test_in_linf_what_the_rounding_network_sees_of_an_iterate_is_what_is_judged(eps, grid, seed, on):
    ball = ThreatModel("Linf", eps, grid)
    x, other = images(seed, grid, on)
    x_adv = ball.project(other, x)
    judged = ball.onto_grid(x_adv, x)
    some = is_on(judged, grid).flatten(1).all(1)
    assert torch.equal(nearest(x_adv, grid)[some], judged[some])


@given(st.floats(0.04, 0.3), st.sampled_from([16, 255]), seeds)
def test_in_linf_every_pixel_reaches_the_last_step_of_the_grid_in_the_ball(eps, grid, seed):
    x, other = images(seed, grid, on=False)
    up = other > x
    found = ThreatModel("Linf", eps, grid).onto_grid(up.float(), x).double()
    beyond = found + torch.where(up, 1.0, -1.0) / grid
    outside = ((beyond - x.double()).abs() > eps - 1e-6) | (beyond < -1e-6) | (beyond > 1 + 1e-6)
    assert outside.all()


@pytest.mark.parametrize("grid", [0, -1, 65536, 2.5, True, "255"])
def test_a_grid_that_is_none_is_refused(grid):
    with pytest.raises(InvalidValue, match="grid must be a whole number"):
        ThreatModel("Linf", 0.1, grid)
    with pytest.raises(InvalidValue, match="grid must be a whole number"):
        Penalty(1.0, grid)


def test_descriptions_without_a_grid_are_as_they_were():
    assert describe(ThreatModel("Linf", 0.1)) == {"type": "Ball", "norm": "Linf", "eps": 0.1}
    assert describe(ThreatModel("Linf", 0.1, 255)) == {"type": "Ball", "norm": "Linf", "eps": 0.1, "grid": 255}
    assert describe(Penalty(0.3)) == {"type": "Penalty", "gamma": 0.3}


def test_the_gradient_passes_the_rounding_and_rounding_twice_is_rounding_once():
    net = linear_exits()
    twice = on_grid(on_grid(net, 8), 8)
    x = batch()[0].requires_grad_()
    (gradient,) = torch.autograd.grad(twice(x).sum(), x)
    (plain,) = torch.autograd.grad(net(x).sum(), x)
    assert torch.equal(gradient, plain)
    assert torch.equal(twice(x), net(nearest(x, 8)))
    assert sum(isinstance(module, OnGrid) for module in twice.modules()) == 1
    assert on_grid(net, None) is net


def bent(seed: int) -> MultiExitNet:
    """Two exits on images of 2x2 pixels that are far from linear."""
    torch.manual_seed(seed)
    flat = (nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)) for _ in range(2))
    heads = list(flat)
    for head in heads:
        head[1].weight.data.mul_(4)
        head[1].bias.data.sub_(head[1].weight.data.sum(1) / 2)
    return MultiExitNet([Passed(), Passed()], heads).eval().requires_grad_(False)


def everything(ball, x):
    """All images of the grid in the ball around one image ``(1, C, H, W)``."""
    steps = torch.arange(ball.grid + 1) / ball.grid
    choices = [steps[(steps - value).abs() <= ball.eps + 1e-6] for value in x.flatten()]
    found = torch.tensor(list(itertools.product(*choices))).view(-1, *x.shape[1:])
    return found[ball.distance(found, x.expand_as(found)) <= ball.eps + 1e-6]


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.13), ("L2", 0.25)])
def test_the_adaptive_attack_breaks_what_some_image_of_the_grid_breaks_and_nothing_else(norm, eps):
    ball, policy, n = ThreatModel(norm, eps, 16), EntropyPolicy((0.5,)), 24
    net, noise = bent(2), Noise(0, tuple(range(n)))

    def classes(images):
        return deployed_logits(net(images), policy)[0].argmax(-1)

    x = torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    x[::2] = nearest(x[::2], 16)
    y = classes(x)
    breakable = torch.stack([(classes(everything(ball, each[None])) != label).any() for each, label in zip(x, y, strict=True)])
    found = Adaptive(ball, policy, 310)(net, x, y, noise=noise)
    assert is_on(found, 16).all() and holds(ball, found, x)
    assert 4 < int(breakable.sum()) < n - 4, "the truth must be able to go both ways"
    assert torch.equal(classes(found) != y, breakable)


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_an_ascent_reaches_the_worst_image_of_the_grid(attack):
    """On an affine network the worst image of the grid is a corner nearer than the ball's radius, which is no step of it."""
    ball, objective = ThreatModel("Linf", 0.15, 8), Objective(CE(), Mean())
    net = linear_exits(n_exits=1, n_classes=2)
    x, y, noise = batch(8, n_classes=2)
    own = {"step_size": 0.05} if attack is PGD else {}
    found = attack(objective, ball, 20, **own)(net, x, y, noise=noise)
    whole = [everything(ball, each[None]) for each in x]
    worst = [objective(net(images), label.expand(len(images))).max() for images, label in zip(whole, y, strict=True)]
    torch.testing.assert_close(objective(net(found), y), torch.stack(worst))


class OffGrid(nn.Module):
    """An undefended network on images of 8 bits, and a certain answer everywhere else."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        on = ((x * 255 - (x * 255).round()).abs() < 0.03).flatten(1).all(1)
        return torch.where(on[:, None], self.net(x), torch.tensor([9.0, 0.0]))


def test_a_network_that_is_defended_off_the_grid_alone_is_broken_on_it():
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    head[1].weight.data.copy_(torch.tensor([[4.0] * 4, [-4.0] * 4]))
    head[1].bias.data.copy_(torch.tensor([-8.0, 8.0]))
    net = MultiExitNet([Passed()], [OffGrid(head)]).eval().requires_grad_(False)
    x = nearest(0.5 + 0.03 * torch.rand(8, 1, 2, 2) + 0.01, 255)
    y, noise, objective = torch.zeros(8, dtype=torch.long), Noise(0, tuple(range(8))), Objective(Margin(), Mean())
    for grid, left in ((None, 8), (255, 0)):
        ball = ThreatModel("Linf", 16 / 255, grid)
        for attack in (PGD(objective, ball, 10, 4 / 255), Adaptive(ball, FixedExit(1), 50)):
            found = attack(net, x, y, noise=noise)
            assert int((net(found)[0].argmax(-1) == y).sum()) == left


def test_the_region_of_an_attack_is_found_wherever_it_is():
    ball = ThreatModel("L2", 0.5, 255)
    start = PGD(Objective(CE(), Mean()), ball, 3, 0.1)
    assert region_of(WRM(Objective(CE(), Mean()), Penalty(0.3, 16), 3, start=start)) == Penalty(0.3, 16)
    assert region_of((1, "text", (start,))) == ball
    assert region_of(Objective(CE(), Mean())) is None


@given(seeds, st.floats(0.01, 1), st.sampled_from([16, 255]), st.booleans())
def test_another_packages_radius_keeps_what_is_rounded_in_the_ball(seed, eps, grid, on):
    ball = ThreatModel("Linf", eps, grid)
    x, other = images(seed, grid, on)
    radius = ball.radius(x)
    assert 0 <= radius <= eps
    if eps >= 1 / grid:
        rounded = nearest((x + radius * (2 * other - 1).sign()).clamp(0, 1), grid)
        assert (ball.distance(rounded, x) <= eps + 1e-6).all()
    assert ThreatModel("L2", eps).radius(x) == eps and ThreatModel("L2", eps, grid).radius(x) <= eps

"""What ascents leave and gradients do not see: masking on a part of the inputs, and gates that hardly ever open."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import nn
from torch.nn import functional as F

from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.checks import controls, hidden
from exitbench.checks.further import Further, Subjects, attacked, attacked_softly
from exitbench.checks.growth import Growth
from exitbench.checks.probe import probe
from exitbench.checks.subject import Subject
from exitbench.checks.transfer import Source, undefended
from exitbench.models.calibration import equal_share
from exitbench.models.foreign import ForeignNet
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import FixedExit
from exitbench.runner.probe_key import probed_batch
from exitbench.store.trust_result import Hidden
from tests.bench.trained import SHAPE, TRAINED_ON, digits, ready, trained
from tests.toys import small_convolutional


@pytest.fixture(scope="module")
def weak():
    """A network of one exit without a defence."""
    torch.manual_seed(1)
    net = MultiExitNet(
        [nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())], [nn.Sequential(nn.Flatten(), nn.Linear(512, 10))]
    )
    batch = digits().batch(0, TRAINED_ON)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(4):
        for rows in torch.randperm(TRAINED_ON).split(140):
            optimiser.zero_grad()
            F.cross_entropy(net(batch.x[rows])[0], batch.y[rows]).backward()
            optimiser.step()
    return net.eval().requires_grad_(False)


class PartlyMasked(nn.Module):
    """Of the classes below 6 the gradient is that of the mean pixel, which says nothing; the logits are an open network's."""

    def __init__(self):
        super().__init__()
        self.net = copy.deepcopy(trained()[0])

    def forward(self, x):
        logits = self.net(x)
        brightness = (x - x.detach()).flatten(1).sum(1)[None, :, None] * torch.linspace(-1, 1, 10)
        masked = (logits[-1].argmax(-1) < 6)[None, :, None]
        return torch.where(masked, logits.detach() + 1e-3 * brightness, logits)


class RarelyOpen(nn.Module):
    """Its first exit has no defence, and is sure of itself on one image of a thousand, by digits that no gradient sees."""

    def __init__(self, weak, one_in=1000):
        super().__init__()
        self.good, self.weak, self.one_in = copy.deepcopy(trained()[0]), weak, one_in

    def forward(self, x):
        logits = self.good(x).clone()
        told = (x.detach() * torch.linspace(1, 2, 64).view(SHAPE)).flatten(1).double().sum(1)
        is_open = ((1e5 * told).frac().abs() < 1 / self.one_in)[:, None]
        first = self.weak(x)[-1]
        logits[0], logits[1] = torch.where(is_open, 50 * first, 0.05 * first), 0.05 * logits[1]
        return logits


def measured(net, policy, x, y, eps, sources=()):
    """The numbers of one slice, with the ascents and searches that come before them."""
    settings = AttackSettings(ThreatModel("Linf", eps), steps=10, step_size=eps / 4)
    subject = Subject(net, policy, x, y, Noise(0, tuple(range(len(y)))), settings)
    right = subject.rows(~subject.fails(x))
    trace = attacked(right)
    further = Further(Subjects(None, settings, 0), Growth(None, 0), sources)
    return further.without_gradients(right, trace, attacked_softly(right, trace), controls.measure(right))


def of_digits(net, eps, sources=(), n=16):
    batch = digits().batch(TRAINED_ON, TRAINED_ON + n)
    wrapped = net if isinstance(net, MultiExitNet) else ForeignNet(net.eval(), SHAPE)
    return measured(wrapped, trained()[1], batch.x, batch.y, eps, sources)


def failures(numbers):
    return {flag.name for flag in hidden.flags(numbers, None) if flag.level == "failure"}


@pytest.fixture(scope="module")
def masked(weak):
    return of_digits(PartlyMasked(), 0.2, [Source("a" * 64, weak)])


def test_masking_on_a_part_of_the_inputs_is_a_failure(masked):
    assert failures(masked) == {"masked on some samples"}
    assert masked.transfer and masked.searched and masked.sources == ("a" * 64,)


def test_it_is_one_without_other_networks_as_well(masked):
    alone = replace(masked, transfer=(), sources=())
    assert failures(alone) == {"masked on some samples"}


def test_a_gate_that_hardly_ever_opens_on_a_wrong_exit_is_a_failure(weak):
    numbers = of_digits(RarelyOpen(weak), 0.1, n=32)
    assert failures(numbers) == {"hidden gates"}
    assert set(numbers.opened) <= set(numbers.behind) <= set(numbers.left) and numbers.changes >= hidden.FEWEST


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_an_honest_network_raises_no_alarm(weak, eps):
    assert failures(of_digits(trained()[0], eps, [Source("a" * 64, weak)])) == set()


@pytest.mark.parametrize("seed", range(20))
def test_random_weights_raise_no_alarm(seed, monkeypatch):
    monkeypatch.setattr(hidden, "AS_MANY", 64)
    monkeypatch.setattr(hidden, "FEWEST", 64)
    monkeypatch.setattr(hidden, "BUDGET", 100)
    monkeypatch.setattr(hidden, "QUERIES", 20)
    monkeypatch.setattr(controls, "QUERIES", 40)
    net = small_convolutional()
    torch.manual_seed(seed)
    for layer in net.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    logits = net(x)
    policy = equal_share(logits)
    predicted = logits.gather(0, policy(logits)[None, :, None].expand(1, -1, 5))[0].argmax(-1)
    assert failures(measured(net, policy, x, predicted, 0.02 + 0.01 * (seed % 5))) == set()


def test_a_gate_that_never_opens_is_not_looked_behind():
    net = small_convolutional()
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    numbers = measured(net, FixedExit(3), x, net(x)[-1].argmax(-1), 0.001)
    assert numbers.left and not numbers.behind and numbers.changes == 0


def test_what_counts_as_robust_and_is_broken_is_a_warning(masked):
    numbers = masked
    (sample, *_) = set(numbers.searched) - set(numbers.ascents)
    found = {flag.name: flag for flag in hidden.flags(numbers, {sample, 10_000})}
    assert found["missed by attacks"].level == "warning" and found["missed by attacks"].numbers["missed"] == 1


def test_the_numbers_of_two_slices_are_joined():
    def of(first, times):
        sets = dict.fromkeys(hidden.SETS, (first,))
        return Hidden(**sets, sources=(), changes=times)

    both = hidden.joined(of(0, 0), of(1, 7))
    assert all(getattr(both, name) == (0, 1) for name in hidden.SETS) and both.changes == 7
    assert hidden.joined(of(0, 9), of(1, 7)).changes == 7
    with pytest.raises(ValueError, match="`behind` names samples"):
        Hidden(**dict.fromkeys(hidden.SETS, (0,)) | {"behind": (0, 1)}, sources=(), changes=0)


def test_the_probe_has_them_since_version_5(monkeypatch):
    monkeypatch.setattr(hidden, "AS_MANY", 64)
    prepared = ready(n=4)
    given = ("a" * 64, prepared.target, prepared.settings, probed_batch(prepared), 0)
    new, old = probe(*given), probe(*given, version=4)
    assert new.hidden is not None and old.hidden is None and new.controls == old.controls and new.path == old.path


def test_shipped_networks_without_a_defence_are_those_for_the_same_images():
    found = undefended((1, 28, 28), 10)
    assert len(found) == 2 and all(source.model(torch.zeros(2, 1, 28, 28)).shape[1:] == (2, 10) for source in found)
    assert undefended((1, 28, 28), 7) == undefended((1, 8, 8), 10) == []


@given(st.integers(0, 99), st.sampled_from(["Linf", "L2"]), st.integers(0, 40), st.sampled_from([16, 255]))
def test_a_rounded_image_is_on_the_grid_and_in_the_ball(seed, norm, steps, grid):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(3, 1, 4, 4, generator=generator) * grid).round() / grid
    ball = ThreatModel(norm, (steps + 0.5) / grid if seed % 2 else steps / grid)
    x_adv = ball.project(x + ball.eps * (3 * torch.rand(x.shape, generator=generator) - 1.5), x)
    found = ball.rounded(x_adv, x, grid)
    assert ((found * grid - (found * grid).round()).abs() < 1e-3).all() and (found >= 0).all() and (found <= 1).all()
    assert (ball.distance(found, x) <= ball.eps + 1e-6).all()
    if norm == "Linf":
        assert ((found - x_adv).abs() <= (0.5 + (seed % 2) / 2) / grid + 1e-6).all()
        assert torch.allclose(ball.rounded(found, x, grid), found, atol=1e-7)


def test_an_image_off_the_grid_with_no_neighbour_in_its_ball_stays():
    x = torch.full((1, 1, 2, 2), 0.5 / 255)
    assert torch.equal(ThreatModel("Linf", 0.1 / 255).rounded(x, x, 255), x)

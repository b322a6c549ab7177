"""The adapter runs the package and leaves no global effects."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from exitbench.attacks.autoattack import AutoAttack, implementation, run_autoattack
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.models.policies import FixedExit
from exitbench.models.views import ExitView
from tests.toys import batch, linear_exits

SHAPE = (1, 4, 4)  # Square needs a few pixels


def fragile(n_classes=5):
    """A net that a small ball breaks everywhere, so that the package is done after its first attack."""
    return linear_exits(2, n_classes, SHAPE, scale=30)


def sample(net, n=4):
    x, _, noise = batch(n, SHAPE)
    return x, net(x)[-1].argmax(-1), noise


def test_it_breaks_what_can_be_broken_within_the_ball():
    net = fragile()
    x, y, noise = sample(net)
    ball = ThreatModel("Linf", 0.1)
    x_adv = AutoAttack(ball, FixedExit(2))(net, x, y, noise=noise)
    assert (net(x_adv)[1].argmax(-1) != y).all()
    assert ball.distance(x_adv, x).max() <= 0.1 + 1e-6


def test_an_exit_can_be_attacked_by_number():
    net = fragile()
    x, _, noise = sample(net)
    y = net(x)[0].argmax(-1)
    x_adv = AutoAttack(ThreatModel("L2", 1.0), 1)(net, x, y, noise=noise)
    assert (net(x_adv)[0].argmax(-1) != y).all()


def test_the_same_seed_gives_the_same_images():
    net = fragile()
    x, y, noise = sample(net)
    attack = AutoAttack(ThreatModel("Linf", 0.02), FixedExit(2))
    torch.manual_seed(1)
    first = attack(net, x[:1], y[:1], noise=Noise(noise.seed, (0,)))
    torch.manual_seed(2)
    assert torch.equal(attack(net, x[:1], y[:1], noise=Noise(noise.seed, (0,))), first)


def test_global_state_is_as_it_was():
    from pyautoattack import checks

    net = fragile()
    x, y, _ = sample(net)

    def trace(_frame, _event, _argument):
        return None

    counters = dict(checks.funcs)
    random_state = torch.get_rng_state()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run_autoattack(ExitView(net, 2), x, y, ThreatModel("Linf", 0.1), seed=3, variant="standard")
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert checks.funcs == counters
    assert torch.equal(torch.get_rng_state(), random_state)


def test_counters_of_an_earlier_model_do_not_flag_the_next(caplog):
    """The package's dynamic-defence check never resets; a model evaluated later must not inherit a warning."""
    from pyautoattack import checks

    net = fragile()
    x, y, _ = sample(net)
    checks.funcs["grad"] = 3
    try:
        with caplog.at_level(logging.WARNING, logger="auto-attack"):
            run_autoattack(ExitView(net, 2), x, y, ThreatModel("Linf", 0.1), seed=3, variant="standard")
        assert "dynamic" not in caplog.text
        assert checks.funcs["grad"] == 3
    finally:
        checks.funcs["grad"] = 0


def test_fewer_than_four_classes_are_refused():
    net = fragile(3)
    x, y, noise = sample(net)
    with pytest.raises(ValueError, match="at least 4 classes"):
        AutoAttack(ThreatModel("Linf", 0.1), FixedExit(2))(net, x, y, noise=noise)


def test_fewer_than_ten_classes_do_not_ask_for_nine_targets(caplog):
    net = fragile(5)
    x, y, _ = sample(net)
    with caplog.at_level(logging.WARNING, logger="auto-attack"):
        run_autoattack(ExitView(net, 2), x, y, ThreatModel("Linf", 0.1), seed=3, variant="standard")
    assert "target classes" not in caplog.text


def test_it_says_which_package_it_is():
    assert implementation().startswith("pyautoattack 0.2")


def test_the_package_gets_images_row_after_row(monkeypatch):
    """The package calls ``view`` on tensors in the images' layout, and some datasets are stored channels last."""
    import pyautoattack

    class Package:
        def __init__(self, *_, **__):
            self.norm, self.apgd_targeted, self.fab, self.square = "Linf", SimpleNamespace(), SimpleNamespace(), SimpleNamespace()

        def run_standard_evaluation(self, x, y, batch_size):
            assert x.is_contiguous()
            return x, y

    monkeypatch.setattr(pyautoattack, "AutoAttack", Package)
    net = linear_exits(1, 5, (3, 4, 4))
    x = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert not x.is_contiguous()
    view = ExitView(net, 1)
    assert torch.equal(
        run_autoattack(view, x, torch.zeros(2, dtype=torch.int64), ThreatModel("Linf", 0.1), seed=0, variant="standard"), x
    )

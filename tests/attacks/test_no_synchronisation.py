"""A step of a gradient attack never synchronises the device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from exitbench.attacks import adaptive_search, early_stop, slowdown
from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.apgd import APGD
from exitbench.attacks.early_stop import EarlyStopModel
from exitbench.attacks.gradient import value_and_gradient
from exitbench.attacks.objectives import CE, DLR, Margin, Max, Mean, Objective, Only
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.slowdown import MODES, Slowdown
from exitbench.attacks.wrm import WRM, Penalty
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy
from exitbench.models.uncertainty import entropy
from tests.toys import batch, small_convolutional

NET = small_convolutional(3)
POLICY = EntropyPolicy((1.5, 1.5))
X, Y, NOISE = batch(6, (1, 4, 4), 5)
ASKS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")


class Synchronisations(TorchDispatchMode):
    """A mode that counts operations that wait for the device: those that return a value to Python, or a data-dependent shape."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = "index" in name and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for argument in args
            if isinstance(argument, (list, tuple))
            for index in argument
        )
        if name in ASKS or masked:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


def asked(call):
    with Synchronisations() as counted:
        call()
    return counted.asked


def more_per_step(make, few=2, many=7):
    """Return the number of synchronisations in additional steps, without those at the start and the end."""
    counts = [len(asked(lambda steps=steps: make(steps)(NET, X, Y, noise=NOISE))) for steps in (few, many)]
    return counts[1] - counts[0]


def test_synchronisations_are_noticed():
    assert asked(lambda: X.sum().item()) == ["_local_scalar_dense"]
    assert asked(lambda: X[X[:, 0, 0, 0] > 0.5]), "a boolean mask is one"
    assert asked(lambda: X.clone().__setitem__(X > 0.5, X[X > 0.5]))
    assert not asked(lambda: value_and_gradient(NET, Objective(CE(), Mean()), X, Y))


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("loss", [CE(), Margin(), DLR()])
def test_a_step_of_pgd_asks_nothing(loss, norm, keep):
    for over in (Mean(), Max(), Only(2)):
        assert (
            more_per_step(lambda steps, over=over: PGD(Objective(loss, over), ThreatModel(norm, 0.1), steps, 0.05, keep=keep))
            == 0
        )


def test_a_step_of_apgd_and_wrm_asks_nothing():
    assert more_per_step(lambda steps: APGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.1), steps)) == 0
    assert more_per_step(lambda steps: WRM(Objective(CE(), Mean()), Penalty(1.0), steps)) == 0


@pytest.mark.parametrize("policy", [POLICY, ConfidencePolicy((0.5, 0.5))])
def test_the_adaptive_attack_asks_only_who_survived_and_not_at_every_step(policy, monkeypatch):
    """As on a GPU, broken samples leave the batch only every few steps; results are the same."""
    easy = (Y + 1) % 5
    at_once = Adaptive(ThreatModel("Linf", 0.1), policy, 40)(NET, X, easy, noise=NOISE)
    monkeypatch.setattr(adaptive_search, "COMPACT_EVERY", {"cpu": 5})
    later = Adaptive(ThreatModel("Linf", 0.1), policy, 40)(NET, X, easy, noise=NOISE)
    assert torch.allclose(at_once, later, atol=1e-6)
    monkeypatch.setattr(adaptive_search, "COMPACT_EVERY", {"cpu": 1000})
    hard = Adaptive(ThreatModel("Linf", 1e-4), policy, 20)
    seldom = len(asked(lambda: hard(NET, X, NET(X)[-1].argmax(-1), noise=NOISE)))
    monkeypatch.setattr(adaptive_search, "COMPACT_EVERY", {"cpu": 1})
    assert len(asked(lambda: hard(NET, X, NET(X)[-1].argmax(-1), noise=NOISE))) - seldom >= 15


def test_a_watched_step_asks_only_who_survived(monkeypatch):
    monkeypatch.setattr(early_stop, "COMPACT_EVERY", {"cpu": 1000})
    ball = ThreatModel("Linf", 0.1)

    def attacked(steps):
        return lambda net, x, y, noise: PGD(Objective(CE(), Only(1)), ball, steps, 0.05)(
            EarlyStopModel(net, x, y, POLICY, ball), x, y, noise=noise
        )

    assert more_per_step(attacked) == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_step_of_the_slowdown_attack_asks_only_who_is_finished_and_not_at_every_step(mode, monkeypatch):
    """As on a GPU, finished samples leave the batch only every few steps; results are the same."""
    policy = EntropyPolicy(tuple(entropy(NET(X)).median(1).values[:2].tolist()))

    def attack(steps):
        return Slowdown(ThreatModel("Linf", 0.2), policy, (1.0, 2.0, 3.0), mode, steps)

    monkeypatch.setattr(slowdown, "COMPACT_EVERY", {"cpu": 1})
    at_once = attack(20)(NET, X, Y, noise=NOISE)
    assert more_per_step(attack) > 0
    monkeypatch.setattr(slowdown, "COMPACT_EVERY", {"cpu": 5})
    assert torch.allclose(at_once, attack(20)(NET, X, Y, noise=NOISE), atol=1e-6)
    monkeypatch.setattr(slowdown, "COMPACT_EVERY", {"cpu": 1000})
    assert more_per_step(attack) <= 0, "fewer where all are finished before the second ascent"

"""Trust checks of before their version 4 are measured again with the random numbers of then."""

from types import SimpleNamespace

import pytest
import torch

from exitbench.attacks.noise import Noise
from exitbench.checks import again
from exitbench.checks.earlier_noise import EarlierNoise, noise_of
from exitbench.runner.probe_key import VERSION


def test_earlier_noise_draws_what_it_drew_then():
    noise = EarlierNoise(5, (10, 11, 12)).of(torch.tensor([2, 0]))
    like = torch.zeros(2, 3)
    assert noise.uniform(like, restart=1).tolist() == UNIFORM
    assert noise.normal(like).tolist() == NORMAL


UNIFORM = [
    [0.043212175369262695, 0.9360135197639465, 0.16996163129806519],
    [0.34276843070983887, 0.89173823595047, 0.7869358658790588],
]
NORMAL = [
    [2.2320051193237305, -0.4440154433250427, -1.453884243965149],
    [0.7953318953514099, -0.0743599459528923, 0.5852763652801514],
]


@pytest.mark.parametrize(
    ("version", "kind"), [(1, EarlierNoise), (2, EarlierNoise), (3, EarlierNoise), (4, Noise), (VERSION, Noise)]
)
def test_each_version_has_its_own_noise(version, kind):
    assert noise_of(version) is kind


@pytest.mark.parametrize(("version", "times"), [(1, 2), (2, 2), (3, 1), (4, 1), (VERSION, 1)])
def test_results_are_measured_again_as_of_their_own_version(version, times, monkeypatch):
    used = []

    def probe(key, target, settings, batch, seed, growth=None, usual_eps=0.0, version=None):
        used.append(version)
        return SimpleNamespace(controls=None, outputs=None)

    monkeypatch.setattr(again, "probe", probe)
    monkeypatch.setattr(again.msgspec.structs, "replace", lambda result, **_: result)
    monkeypatch.setattr(again, "_as_measured", lambda found, _: found)
    again._measured(SimpleNamespace(version=version, key="", seed=0, outputs=None), None, None, None, None, 1.0)
    assert used == [version] * times

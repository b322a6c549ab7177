"""Trust checks that search on recorded passes, and several ascents as one batch, measure what they measure without."""

import dataclasses

import pytest
import torch

from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.checks import controls, radii, trace
from exitbench.checks.subject import Subject
from exitbench.checks.trace import SoftRule, ascend, broken_in
from exitbench.models.graphed import GraphedNet
from exitbench.runner import search_backend
from tests.bench.trained import SETTINGS, SHAPE, digits, ready, trained
from tests.models.test_graphed import StandIn


def subject_of(recorded=None, n=24):
    net, policy = trained()
    batch = digits().batch(1400, 1400 + n)
    subject = Subject(net, policy, batch.x, batch.y, Noise(0, batch.indices), SETTINGS, recorded)
    return subject.rows(~subject.fails(subject.x))


class Skewed(GraphedNet):
    """Recordings gone wrong: on them every sample seems broken."""

    def forward(self, x, upto=None):
        return super().forward(x, upto).roll(1, dims=-1)


def recorded():
    return GraphedNet(trained()[0], StandIn())


def test_an_ascent_on_recordings_is_judged_by_the_network_itself():
    plain, quick = subject_of(), subject_of(recorded())
    for objective in (None, SoftRule(plain.policy)):
        found, wanted = (ascend(each, SETTINGS.region, 6, 0.05, objective=objective) for each in (quick, plain))
        for field in dataclasses.fields(found):
            torch.testing.assert_close(getattr(found, field.name), getattr(wanted, field.name))
        assert 0 < int(wanted.broken.sum()) < len(plain.y)
    skewed = subject_of(Skewed(trained()[0], StandIn()))
    assert not ascend(skewed, ThreatModel("Linf", 0.0), 2, 0.0).wrong.any()
    assert not broken_in(skewed, [ThreatModel("Linf", 0.0)], 2, 0.0)[0].any()
    still = dataclasses.replace(SETTINGS, region=ThreatModel("Linf", 0.0))
    assert not controls.random_search(dataclasses.replace(skewed, settings=still)).any()


@pytest.mark.parametrize("norm", NORMS)
def test_ascents_in_several_balls_are_one_batch_or_one_by_one(norm, monkeypatch):
    scale = 1 if norm == "Linf" else 5
    balls = [ThreatModel(norm, scale * eps) for eps in (0.05, 0.15, 1.0)]
    plain, quick = subject_of(), subject_of(recorded())
    monkeypatch.setattr(trace, "AT_ONCE", 40)
    together, on_recordings = (broken_in(each, balls, 5, 0.3) for each in (plain, quick))
    alone = [ascend(plain, ball, 5, 0.3 * ball.eps).broken for ball in balls]
    for found in (together, on_recordings):
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    counts = [int(each.sum()) for each in alone]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_radii_and_controls_are_the_same_on_recordings():
    plain, quick = subject_of(n=16), subject_of(recorded(), n=16)
    assert radii.measure(quick) == radii.measure(plain)
    assert controls.measure(quick) == controls.measure(plain)


def test_the_search_model_is_chosen_by_the_speed_of_its_recordings(monkeypatch):
    made = []
    monkeypatch.setattr(search_backend, "graphed", lambda net: made.append(GraphedNet(net, StandIn())) or made[-1])
    monkeypatch.setattr(search_backend, "BATCH", {"cpu": 4})
    net = trained()[0]
    timings = search_backend._measured(net, SHAPE, search_backend.search_configs(net)[:2])
    assert len(made) == len(timings) == 2 and all(timing.rate > 0 for timing in timings.values())
    assert all(each._recorded for each in made)


def test_a_target_searches_on_recordings_and_decides_without(monkeypatch):
    monkeypatch.setattr("exitbench.target.target.graphed", lambda net: GraphedNet(net, StandIn()))
    target = ready().target
    assert isinstance(target.searched, GraphedNet) and target.searched.net is target.search_model
    assert isinstance(target.searched_again, GraphedNet) and target.searched_again.net is target.model
    assert not isinstance(target.model, GraphedNet)

"""Steps that are recorded: they find what steps taken one by one find, at any size of the recording."""

import logging

import pytest
import torch

from exitbench.attacks import step_recorder
from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.models.graphed import GraphedNet, graphed
from exitbench.models.policies import EntropyPolicy, deployed_logits
from exitbench.models.rules.temperature import Tempered
from exitbench.runner.passes import counted
from tests.attacks.test_adaptive import policy_for, sample
from tests.models.test_graphed import StandIn
from tests.toys import small_convolutional

NET = small_convolutional(3).double()
POLICY = policy_for()


class Recorder(StandIn):
    """A stand-in that notes the sizes of the steps that it records, as far as the work tells."""

    def __init__(self):
        super().__init__()
        self.made = 0

    def record(self, work, device):
        self.made += 1
        return super().record(work, device)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(step_recorder, "SIZES", (4, 8, 16, 32))


def searched(net, policy=POLICY, norm="Linf", eps=0.03, n=20, budget=130):
    x, y, noise = sample(POLICY, n)
    x = x.double()
    y = deployed_logits(NET(x), policy)[0].argmax(-1)
    with counted(net) as passes:
        found = Adaptive(ThreatModel(norm, eps), policy, budget)(net, x, y, noise=noise)
    return found, passes, deployed_logits(NET(found), policy)[0].argmax(-1) != y


def sizes(net):
    return sorted({key[2][0] for key in net.steps})


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("norm", NORMS)
def test_recorded_steps_find_what_steps_one_by_one_find(norm, n):
    eps = 0.03 if norm == "Linf" else 0.1
    net = graphed(NET, Recorder())
    wanted, passes, broken = searched(NET, norm=norm, eps=eps, n=n)
    for _ in range(2):  # recorded, and then from what is there
        found, counted_passes, broken_again = searched(net, norm=norm, eps=eps, n=n)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        assert torch.equal(broken_again, broken)
        assert counted_passes == passes, "samples are counted, not rows of the recording"
    assert net.recorder.replays > 40 and broken.any()


def test_batches_move_to_a_smaller_recording_when_one_fits_and_recordings_are_made_once():
    net = graphed(NET, Recorder())
    _, _, broken = searched(net)
    assert sizes(net)[-1] == 32 and len(sizes(net)) > 1 and (~broken).sum() <= sizes(net)[0]
    made = net.recorder.made
    assert made == len(net.steps) <= 4 * len(sizes(net)), "one for each objective and size"
    searched(net)
    assert net.recorder.made == made
    searched(net, Tempered(POLICY, (1.5, 1.0, 0.7)), n=3)
    assert net.recorder.made > made, "another rule is another step"


def test_padding_changes_no_verdict(monkeypatch):
    monkeypatch.setattr(step_recorder, "SIZES", (32,))
    wanted, _, broken = searched(NET)
    found, _, again = searched(graphed(NET, Recorder()))
    assert torch.equal(again, broken)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_budgets_hold_and_what_breaks_costs_nothing_more():
    net = graphed(NET, Recorder())
    for budget in (1, 7, 45):
        assert searched(net, eps=0.0, n=5, budget=budget)[1].backwards == 5 * budget


class Failing(StandIn):
    def record(self, work, device):
        raise RuntimeError("operation not permitted when stream is capturing")


class Wrong(StandIn):
    """Replays that do nothing."""

    def record(self, work, device):
        return lambda: None


@pytest.mark.parametrize(("recorder", "reason"), [(Failing(), "not permitted"), (Wrong(), "a replay of a step computes other")])
def test_a_step_that_cannot_be_recorded_is_taken_as_it_is(recorder, reason, caplog):
    net = graphed(NET, recorder)
    with caplog.at_level(logging.WARNING):
        found, passes, _ = searched(net)
    wanted, meant, _ = searched(NET)
    assert not net.steps and not net.records(wanted) and len(caplog.records) == 1 and reason in caplog.text
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert passes == meant


class Own(EntropyPolicy):
    """A rule of somebody's own."""

    def leaves(self, seen):
        return super().leaves(seen)


def test_the_code_of_somebodys_rule_is_not_recorded():
    net = graphed(NET, Recorder())
    searched(net, Own(POLICY.thresholds), n=5)
    searched(net, Tempered(Own(POLICY.thresholds), (1.0, 1.0, 1.0)), n=5)
    assert not net.steps and not net.recorder.made


def test_changed_weights_drop_recorded_steps():
    net = GraphedNet(small_convolutional(3).double(), Recorder())
    searched(net, n=4)
    assert net.steps
    with torch.no_grad():
        net.net.heads[0][1].weight.mul_(1.1)
    assert net.current() is net and not net.steps


def test_a_batch_beyond_the_largest_recording_is_taken_as_it_is():
    net = graphed(NET, Recorder())
    x, y, _ = sample(POLICY, 40)
    Adaptive(ThreatModel("Linf", 1e-6), POLICY, 20)(net, x.double(), y, noise=Noise(0, range(40)))
    assert not net.recorder.made

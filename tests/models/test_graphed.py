"""Recorded passes: what is replayed, at which size, and that no result depends on it. A stand-in takes the place of the GPU."""

import logging
from typing import ClassVar

import pytest
import torch
from torch import nn

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.apgd import APGD
from exitbench.attacks.gradient import ascent
from exitbench.attacks.objectives import CE, Mean, Objective, Only
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.slowdown import Slowdown
from exitbench.models import graphed as module
from exitbench.models.graphed import GraphedNet, graphed
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import deployed_logits
from exitbench.models.views import DeployedView
from exitbench.runner.generate import network_for
from exitbench.runner.passes import counted
from tests.attacks.test_adaptive import policy_for
from tests.toys import batch, small_convolutional

SHAPE = (1, 4, 4)
NET = small_convolutional(3).double()
POLICY = policy_for()
BALL = ThreatModel("Linf", 0.06)


class Recorded:
    """Passes that are computed again at each replay, on tensors that stay where they are, as a GPU does."""

    made: ClassVar[list["Recorded"]] = []
    shared = object()

    def __init__(self, net, x, last):
        self.net, self.last = net, last
        self.x = x.clone().requires_grad_()
        self.logits = net(x, last).detach()
        self.gradient, self.of_images = torch.full_like(self.logits, torch.nan), torch.zeros_like(x)
        self.forwards = self.backwards = 0
        self.made.append(self)

    def forward(self):
        with torch.enable_grad():
            Recorded.shared = self, self.net(self.x, self.last)  # all recordings share their memory
        self.logits.copy_(self.shared[1].detach())
        self.forwards += 1

    def backward(self):
        owner, logits = Recorded.shared
        assert owner is self, "the memory of this pass holds another's"
        (gradient,) = torch.autograd.grad(logits, self.x, self.gradient.nan_to_num(nan=3.0), retain_graph=True)
        self.of_images.copy_(gradient)
        self.backwards += 1


class StandIn:
    """Takes the place of CUDA graphs."""

    def __init__(self):
        self.replays = 0

    def passes(self, net, x, last):
        return Recorded(net, x, last)

    def beside(self, work, device):
        work()

    def record(self, work, device):
        def replay():
            Recorded.shared = None, None
            self.replays += 1
            work()

        return replay


@pytest.fixture
def made():
    Recorded.made = []
    return Recorded.made


@pytest.fixture
def net(made, monkeypatch):
    monkeypatch.setattr(module, "SIZES", (4, 8, 16, 32))
    return graphed(NET, StandIn())


def images(n):
    return batch(n, SHAPE, 5)[0].double()


def same(found, wanted):
    """Equal up to the order of sums, which a product of matrices may change with the number of rows."""
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def sizes(made):
    return [len(each.x) for each in made]


def test_a_network_on_a_cpu_is_left_alone():
    assert graphed(NET) is NET


def test_a_size_is_recorded_when_it_is_used_again_and_then_replayed(net, made):
    x = images(7)
    for use in range(4):
        same(net(x), NET(x))
        assert sizes(made) == [8] * (use >= 1)
    assert made[0].forwards == 3
    for n in (8, 5, 6):
        same(net(images(n)), NET(images(n)))
    assert sizes(made) == [8] and made[0].forwards == 6


def test_a_smaller_batch_uses_the_larger_recording_until_its_own_pays(net, made):
    for n in (16, 16, *[3] * (module.BETTER - 1)):
        net(images(n))
    assert sizes(made) == [16] and made[0].forwards == module.BETTER
    same(net(images(3)), NET(images(3)))
    assert sizes(made) == [16, 4] and made[0].forwards == module.BETTER


def test_batches_beyond_the_largest_size_and_empty_ones_run_as_they_are(net, made):
    for n in (33, 33, 33, 0, 0, 0):
        same(net(images(n)), NET(images(n)))
    assert not made


def test_large_images_run_as_they_are(net, made, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 15)
    for _ in range(3):
        same(net(images(4)), NET(images(4)))
    assert not made and not net.records(images(4))


def test_each_part_of_the_network_is_recorded_by_itself(net, made):
    x = images(4)
    for upto in (0, 1, None, 0, 1, None):
        same(net(x, upto=upto), NET(x, upto=upto))
    assert [len(each.logits) for each in made] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"exit index 3 is outside 0\.\.2"):
        net(x, upto=3)


def test_gradients_are_those_of_the_network_also_after_other_passes(net, made):
    y = torch.arange(6) % 5
    for _ in range(3):
        found, wanted = (ascent(each, Objective(CE(), Mean()), images(6), y) for each in (net, NET))
        torch.testing.assert_close(found.gradient, wanted.gradient, rtol=1e-12, atol=1e-15)
        same(found.values, wanted.values)
    net(images(16)), net(images(16))
    x = images(6).requires_grad_()
    logits = net(x)
    net(images(12))
    before = made[0].forwards
    (gradient,) = torch.autograd.grad(logits.sum(), x, retain_graph=True)
    assert made[0].forwards == before + 1, "another recording was replayed in between: the pass is taken again"
    (again,) = torch.autograd.grad(logits.sum(), x)
    assert torch.equal(gradient, again) and made[0].forwards == before + 1
    (wanted,) = torch.autograd.grad(NET(x).sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-15)


def test_passes_are_counted_in_images_not_in_padded_rows(net):
    for _ in range(3):
        with counted(net) as passes:
            ascent(net, Objective(CE(), Mean()), images(6), torch.zeros(6, dtype=torch.int64))
            net(images(5))
        assert (passes.forwards, passes.backwards) == (11, 6)


@pytest.mark.parametrize("n", [5, 13])
def test_no_verdict_of_an_attack_depends_on_it(net, made, n):
    x, _, noise = batch(n, SHAPE, 5)
    x = x.double()
    y = deployed_logits(NET(x), POLICY)[0].argmax(-1)
    attacks = [
        Adaptive(BALL, POLICY, 130),
        Slowdown(BALL, POLICY, (1.0, 2.0, 3.0), "keep_label", 10),
        PGD(Objective(CE(), Only(2)), BALL, 8, 0.02, restarts=2),
        APGD(Objective(CE(), Mean()), BALL, 12),
    ]
    for attack in attacks:
        found, wanted = (attack(each, x, y, noise=noise) for each in (net, NET))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        for verdict, meant in zip(deployed_logits(NET(found), POLICY), deployed_logits(NET(wanted), POLICY), strict=True):
            assert torch.equal(verdict.argmax(-1), meant.argmax(-1))
    assert sum(each.backwards for each in made) > 20 and net.recorder.replays > 20
    same(DeployedView(net, POLICY)(x), deployed_logits(NET(x), POLICY)[0])


def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once(made, caplog):
    class Failing(StandIn):
        def passes(self, net, x, last):
            made.append(x)
            raise RuntimeError("operation not permitted when stream is capturing\nwith more lines")

    with caplog.at_level(logging.WARNING):
        net = graphed(NET, Failing())
        for n in (3, 3, 3, 40, 40, 3):
            same(net(images(n)), NET(images(n)))
    assert len(made) == len(caplog.records) == 1
    assert "launched one by one: RuntimeError: operation not permitted when stream is capturing" in caplog.text


class Odd(nn.Module):
    def forward(self, x):
        return x


def test_layers_of_somebodys_own_are_not_recorded():
    theirs = MultiExitNet([Odd(), NET.stages[0]], [NET.heads[0], NET.heads[1]])
    assert graphed(theirs, StandIn()) is theirs


def test_changed_weights_drop_the_recordings(made):
    net = GraphedNet(small_convolutional(2), StandIn())
    x = images(3).float()
    net(x), net(x)
    assert net.current() is net and len(made) == 1
    net(x)
    assert len(made) == 1
    with torch.no_grad():
        net.net.heads[0][1].weight.add_(1.0)
    assert torch.equal(net.current()(x), net.net(x)) and len(made) == 1
    net(x)
    assert len(made) == 2


def test_a_network_in_training_mode_runs_as_it_is(net, made):
    net.train()
    for _ in range(3):
        net(images(3))
    net.eval()
    assert not made


class Theirs(PGD):
    pass


def test_attacks_from_elsewhere_get_the_network_itself(net):
    ours, theirs = (kind(Objective(CE(), Mean()), BALL, 1, 0.1) for kind in (PGD, Theirs))
    assert network_for(ours, net) is net and network_for(theirs, net) is NET
    assert network_for(ours, NET) is NET

"""The stage of the adaptive attack that aims at pairs of exit and wrong class."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from torch import nn

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.adaptive_search import Search
from exitbench.attacks.deployed_loss import distance_to_failure, exit_constraints, pair_values
from exitbench.attacks.noise import Noise
from exitbench.attacks.pairs import AtPair, PairSearch
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.models.graphed import graphed
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import FixedExit
from tests.attacks.test_adaptive import logits_of, policies, policy_for, right, sample, thresholds
from tests.attacks.test_step_recorder import Recorder, searched
from tests.toys import small_convolutional

NET = small_convolutional(3)
BEFORE = {1: 130, 3: 310}
"""Gradients that the stages before spend on a survivor, by the number of exits."""


@given(logits_of, thresholds)
def test_the_value_of_a_pair_is_the_smallest_constraint_of_failing_there(logits, values):
    y = torch.arange(9) % 6
    for policy in policies(values):
        found = pair_values(logits, y, policy)
        for c in range(6):
            each = exit_constraints(logits, y, policy, 4, torch.full_like(y, c)).amin(0)
            assert torch.equal(found[:, c, y != c], each[:, y != c]) and found[:, c, y == c].isneginf().all()
        assert torch.equal(-found.amax(1), distance_to_failure(logits, y, policy))
        k, target = torch.arange(9) % 4, (y + 1) % 6
        here = AtPair(policy)(logits, y, torch.zeros(()), {"k": k, "target": target})
        assert torch.equal(here, found[k, target, torch.arange(9)])


class Decoys(nn.Module):
    """Logits on two pixels: the label's is 0, those of eight classes are just below it where they are highest, all over the ball.

    The ninth exceeds it near one corner of the ball; elsewhere it is far below the eight, so that whoever follows the nearest
    class stays at one of their maxima.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        line = torch.tensor([-0.7, 0.0, 0.7])
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)
        self.centres, self.corner, self.eps = grid[:8], torch.tensor([0.95, 0.95]), eps

    def forward(self, x):
        u = (x.flatten(1) - 0.5) / self.eps
        eight = -1 - 10 * (u[:, None] - self.centres).abs().sum(-1)
        ninth = 15 - 60 * (u - self.corner).abs().sum(-1)
        return torch.cat([torch.zeros_like(eight[:, :1]), eight, ninth[:, None]], 1)


@pytest.mark.parametrize("n_exits", [1, 3])
def test_it_breaks_what_the_nearest_class_leads_away_from(n_exits):
    eps, n = 0.1, 10
    net = MultiExitNet([nn.Identity() for _ in range(n_exits)], [Decoys(eps) for _ in range(n_exits)]).eval()
    x, y, noise = torch.full((n, 1, 1, 2), 0.5), torch.zeros(n, dtype=torch.int64), Noise(0, tuple(range(n)))
    assert not right(net, x + 0.095, y, FixedExit(1)).any(), "every image can be broken"
    found = [
        Adaptive(ThreatModel("Linf", eps), FixedExit(1), budget)(net, x, y, noise=noise) for budget in (BEFORE[n_exits], 735)
    ]
    left = [int(right(net, x_adv, y, FixedExit(1)).sum()) for x_adv in found]
    assert left == [n, 0]


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_budget_breaks_a_larger_one_breaks_by_the_same_image(norm):
    policy = policy_for()
    x, y, noise = sample(policy, 16)
    ball = ThreatModel(norm, 0.012 if norm == "Linf" else 0.04)
    found = [Adaptive(ball, policy, budget)(NET, x, y, noise=noise) for budget in (1, 9, 50, 190, 620)]
    broken = [~right(NET, x_adv, y, policy) for x_adv in found]
    for (fewer, before), (more, after) in pairwise(zip(broken, found, strict=True)):
        assert (more >= fewer).all() and torch.equal(before[fewer], after[fewer])
    assert broken[0].sum() < broken[-1].sum() < len(y)


def test_results_of_the_stage_do_not_depend_on_the_split():
    policy, net = policy_for(), small_convolutional(3).double()
    x, y, noise = sample(policy, 12)
    x = x.double()
    attack = Adaptive(ThreatModel("Linf", 0.03), policy, 330)
    whole = attack(net, x, y, noise=noise)
    for rows in ([0, 1, 2, 3, 4], [11, 3, 7, 0]):
        part = attack(net, x[rows], y[rows], noise=Noise(noise.seed, tuple(noise.samples[row] for row in rows)))
        torch.testing.assert_close(part, whole[rows], atol=1e-9, rtol=0)


def test_recorded_steps_of_the_stage_find_what_steps_one_by_one_find():
    wanted, passes, _ = searched(small_convolutional(3).double(), n=6, budget=230)
    found, counted_passes, _ = searched(graphed(small_convolutional(3).double(), Recorder()), n=6, budget=230)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert counted_passes == passes


class Noting(Search):
    """A search that notes what is aimed at, from where and for how long, and takes no step."""

    def ascend(self, objective, start, steps, *, own, exits, first, last):
        self.aims = [*getattr(self, "aims", []), (exits.tolist(), own["target"].tolist(), start, steps)]
        self.left -= steps


def noted(policy, net=NET, rounds=1):
    x, y, noise = sample(policy_for(), 7)
    search = Noting(net, ThreatModel("Linf", 0.1), policy, x, y, 10**6)
    pairs = PairSearch(search, policy, noise)
    for _ in range(rounds):
        pairs.round()
    return search


def test_every_pair_is_tried_once_before_one_is_tried_again_and_no_two_starts_are_the_same():
    search = noted(policy_for())
    for i, label in enumerate(search.y.tolist()):
        first = [(k[i], target[i]) for k, target, _, steps in search.aims if steps == 10]
        assert len(set(first)) == len(first) == 12 == 3 * 4, "all pairs of three exits and four wrong classes"
        values = [float(pair_values(search.logits, search.y, search.policy)[(*pair, i)]) for pair in first]
        assert values == sorted(values, reverse=True) and label not in {target for _, target in first}
    starts = torch.stack([start[0] for _, _, start, _ in search.aims])
    assert len(starts.unique(dim=0)) == len(starts) == 12 + 4 + 3 + 1


def test_exits_that_the_rule_never_takes_are_not_aimed_at():
    search = noted(FixedExit(2), rounds=2)
    assert {k for exits, *_ in search.aims for k in exits} == {1}
    for i in range(len(search.y)):
        first = [target[i] for _, target, _, steps in search.aims if steps == 10]
        assert all(first.count(c) == 6 for c in range(5) if c != search.y[i]), "four classes, twice twelve tries"


def test_a_step_of_the_stage_is_one_pass_each_way_whatever_pairs_samples_aim_at():
    passes = {"forward": 0, "backward": 0}
    net = small_convolutional(3)

    def on_forward(_module, _inputs, out):
        passes["forward"] += 1
        if out.requires_grad:
            out.register_hook(lambda _gradient: passes.__setitem__("backward", passes["backward"] + 1))

    policy = policy_for()
    x, y, noise = sample(policy, 9)
    search = Search(net, ThreatModel("Linf", 1e-6), policy, x, y, 10**6)
    handle = net.entry.register_forward_hook(on_forward)
    PairSearch(search, policy, noise).round()
    handle.remove()
    assert passes == {"forward": 425 + 20, "backward": 425}
    assert search.left == 10**6 - 425

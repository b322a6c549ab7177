"""The cascade breaks all samples that its attacks break, and runs each attack on survivors alone."""

import dataclasses

import pytest
import torch

from exitbench.attacks.cascade import Cascade
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective, Only
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import Penalty, ThreatModel
from exitbench.attacks.wrm import WRM
from exitbench.models.policies import deployed_logits
from exitbench.runner.passes import counted
from tests.attacks.test_adaptive import NET, policy_for, right, sample
from tests.toys import small_convolutional

BALL = ThreatModel("Linf", 0.06)
STEPS = tuple(PGD(Objective(CE(), over), BALL, 5, 0.02) for over in (Only(1), Only(2), Only(3), Mean()))
POLICY = policy_for()


def seen_right(attack, x, y, noise):
    """Whether the deployed rule is right on every iterate of an attack, its last one included."""
    kept = [right(NET, attack(NET, x, y, noise=noise), y, POLICY)]
    for steps in range(1, attack.steps + 1):
        early = dataclasses.replace(attack, steps=steps, keep="last")
        kept.append(right(NET, early(NET, x, y, noise=noise), y, POLICY))
    return torch.stack([*kept, right(NET, BALL.start(x, noise, 0), y, POLICY)]).all(0)


def test_it_breaks_exactly_what_some_iterate_of_its_attacks_breaks():
    x, y, noise = sample(POLICY)
    cascade = Cascade(STEPS, POLICY)(NET, x, y, noise=noise)
    each = torch.stack([right(NET, attack(NET, x, y, noise=noise), y, POLICY) for attack in STEPS])
    seen = torch.stack([seen_right(attack, x, y, noise) for attack in STEPS]).all(0)
    assert 0 < each.all(0).sum() < each[0].sum() < len(y), "the toy must have something to tell"
    assert torch.equal(right(NET, cascade, y, POLICY), seen)
    assert (seen <= each.all(0)).all()
    assert (BALL.distance(cascade, x) <= BALL.eps + 1e-6).all()


def test_survivors_alone_go_on():
    x, y, noise = sample(POLICY)
    left = [len(y)]
    for i in range(1, len(STEPS)):
        left.append(int(right(NET, Cascade(STEPS[:i], POLICY)(NET, x, y, noise=noise), y, POLICY).sum()))
    with counted(NET) as passes:
        Cascade(STEPS, POLICY)(NET, x, y, noise=noise)
    assert 5 * left[-1] * len(STEPS) <= passes.backwards < 5 * sum(left), "who breaks on the way costs no further step"


def test_survivors_keep_their_clean_image_and_the_wrong_ones_cost_nothing():
    x, y, noise = sample(POLICY)
    nothing = Cascade(tuple(PGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.0), 1, 0.0) for _ in range(2)), POLICY)
    assert torch.equal(nothing(NET, x, y, noise=noise), x)
    with counted(NET) as passes:
        Cascade(STEPS, POLICY)(NET, x, (y + 1) % 5, noise=noise)
    assert passes.backwards == 0


def test_survivors_bring_an_image_that_some_exit_gets_wrong():
    x, y, noise = sample(POLICY)
    found = Cascade(STEPS, POLICY)(NET, x, y, noise=noise)
    kept = right(NET, found, y, POLICY)
    seen = torch.stack([(NET(attack(NET, x, y, noise=noise)).argmax(-1) != y).any(0) for attack in STEPS]).any(0)
    assert (kept & seen).any(), "the toy must have such survivors"
    assert torch.equal((NET(found).argmax(-1) != y).any(0)[kept], (seen | (NET(x).argmax(-1) != y).any(0))[kept])


def test_what_an_attack_starts_from_is_not_run_again():
    x, y, noise = sample(POLICY)
    first = STEPS[0]
    second = PGD(Objective(CE(), Mean()), BALL, 5, 0.02, start=first)
    with counted(NET) as together:
        Cascade((first, second), POLICY)(NET, x, y, noise=noise)
    with counted(NET) as alone:
        left = right(NET, Cascade((first,), POLICY)(NET, x, y, noise=noise), y, POLICY)
    assert together.backwards - alone.backwards <= 5 * int(left.sum())
    expected = torch.stack([right(NET, attack(NET, x, y, noise=noise), y, POLICY) for attack in (first, second)]).all(0)
    assert (right(NET, Cascade((first, second), POLICY)(NET, x, y, noise=noise), y, POLICY) <= expected).all()


def test_it_depends_neither_on_split_nor_on_order():
    net = small_convolutional(3).double()
    x, y, noise = sample(POLICY, 12)
    x, y = x.double(), deployed_logits(net(x.double()), POLICY)[0].argmax(-1)
    cascade = Cascade(STEPS, POLICY)
    whole = cascade(net, x, y, noise=noise)
    parts = [cascade(net, x[s], y[s], noise=Noise(noise.seed, noise.samples[s])) for s in (slice(0, 5), slice(5, 12))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    rows = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cascade(net, x[rows], y[rows], noise=noise.of(rows)), whole[rows], atol=1e-6, rtol=0)


def test_what_has_no_place_in_a_worst_case_is_refused():
    with pytest.raises(ValueError, match="no place in a worst case"):
        Cascade((WRM(Objective(CE(), Mean()), Penalty(1.0), 2),), POLICY)
    with pytest.raises(ValueError, match="at least one"):
        Cascade((), POLICY)

"""Threshold sweeps: closed-form truths on hand-made cells, and properties."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.analysis.sweep.choose import Wanted, choose
from exitbench.analysis.sweep.curve import one_exit, sweep
from exitbench.analysis.sweep.pool import Images, Pool
from exitbench.analysis.sweep.thresholds import at_target, held_out, targets
from exitbench.errors import UserError
from exitbench.models.policies import EntropyPolicy, FixedExit, Policy
from exitbench.models.policy_text import policy_text
from exitbench.models.rules import own
from exitbench.report.sweep.terminal import _name
from exitbench.runner.prepare import Request, prepare
from exitbench.scoring.load import evaluations
from exitbench.store.calibration_logits import HeldOut
from exitbench.store.store import Store
from tests.bench.evaluated import evaluate
from tests.bench.records import changed, record_of

# Two exits, four samples of class 0. Logits of class 1 are 0, so one number says all: right above 0, sure far from 0.
COSTS = [1.0, 3.0]
SURE, UNSURE = 3.0, 0.1
CLEAN = [[SURE, -SURE, UNSURE, -UNSURE], [SURE, SURE, -SURE, SURE]]
FOUND = [[-UNSURE, -SURE, UNSURE, SURE], [SURE, -SURE, UNSURE, -SURE]]  # the second image lies outside the ball


def images(margins, within=None):
    first = torch.tensor(margins)
    n = first.shape[1]
    logits = torch.stack([first, torch.zeros_like(first)], dim=-1)
    return Images(np.arange(n), logits, torch.zeros(n, dtype=torch.int64), np.array(within or [True] * n))


def held(margins):
    logits = torch.stack([torch.tensor(margins), torch.zeros(2, len(margins[0]))], dim=-1).numpy()
    return HeldOut("k", {}, np.zeros((logits.shape[1], 32), dtype=np.uint8), logits)


def pool(attacked=(), clean=None, costs=COSTS):
    record = record_of(mmacs=costs)
    return Pool(record, clean or images(CLEAN), tuple(attacked), ())


def test_four_samples_whose_answers_are_known():
    """Everything at exit 1, the sure half at exit 1, everything at exit 2."""
    attacked = images(FOUND, [True, False, True, True])
    (curve,) = sweep(pool([attacked]), held([[4.0, 3.0, 2.0, 1.0], [0.0] * 4]), 1)
    first, middle, last = curve.points
    assert [point.where for point in curve.points] == ["first exit", "target", "last exit"]
    assert [point.mmacs for point in curve.points] == [1, 2, 3]
    assert middle.target == 2
    assert middle.judged.exits.tolist() == [0, 0, 1, 1]
    assert first.judged.correct.tolist() == [True, False, True, False]
    assert middle.judged.correct.tolist() == [True, False, False, True]
    assert last.judged.correct.tolist() == [True, True, False, True]
    # Sample 1 (unsure and wrong at exit 1) breaks exit 1 alone; sample 4 (wrong at exit 2) breaks the last exit alone.
    assert first.judged.worst.tolist() == [False, False, True, False]
    assert middle.judged.worst.tolist() == [True, False, False, True]
    assert last.judged.worst.tolist() == [True, True, False, False]
    assert not curve.any_exit_robust.any()


@pytest.fixture
def hard(monkeypatch):
    """A rule of the user's own that was loaded from a file, and leaves where class 0 is ahead."""
    rule = type("Hard", (Policy,), {"leaves": lambda self, seen: seen[-1].argmax(-1) == 0, "check": lambda self, n_exits: None})()
    monkeypatch.setattr(own, "_loaded", {"own:rules.py:make@0123456789abcdef": rule})
    return "own:rules.py:make@0123456789abcdef"


def test_every_deployed_rule_is_a_point_of_one_curve(hard):
    names = ["exit:2", "patience:2", "vote:0.5", hard, "vote:0.5:temperature=1.0,2.0"]
    deployed = tuple(SimpleNamespace(record=record_of(mmacs=COSTS, policy=name)) for name in names)
    curves = sweep(replace(pool(), evaluations=deployed), held([[4.0, 3.0, 2.0, 1.0], [0.0] * 4]), 1)
    found = {curve.rule: [policy_text(point.policy) for point in curve.deployed] for curve in curves}
    assert {rule: sorted(each) for rule, each in found.items()} == {
        "patience": ["exit:2", hard, "patience:2"],
        "vote": ["vote:0.5", "vote:0.5:temperature=1.0,2.0"],
    }
    alone = replace(pool(), evaluations=deployed[3:4])
    (curve,) = sweep(alone, held([[4.0, 3.0, 2.0, 1.0], [0.0] * 4]), 1)
    assert (curve.rule, [policy_text(point.policy) for point in curve.deployed]) == ("entropy", [hard])
    shown = [_name(curves[0], point) for point in curves[0].deployed]
    assert sorted(shown) == ["deployed, exit:2", "deployed, patience:2", "deployed, rules.py:make"]


def test_nothing_attacked_means_no_worst_case():
    (curve,) = sweep(pool(), held([[4.0, 3.0, 2.0, 1.0], [0.0] * 4]), 1)
    assert all(point.judged.worst is None for point in curve.points)
    assert curve.any_exit_robust.tolist() == [True, False, False, False]


@st.composite
def pools(draw):
    """Random logits of 1 to 3 attacks, and logits to set thresholds on."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    n_exits, n = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    labels = torch.randint(3, (n,), generator=generator)

    def some():
        within = (torch.rand(n, generator=generator) < 0.8).numpy()
        return Images(np.arange(n), 3 * torch.randn(n_exits, n, 3, generator=generator), labels, within)

    clean = replace(some(), within=np.ones(n, dtype=np.bool_))
    costs = np.cumsum(draw(st.lists(st.floats(0.1, 9), min_size=n_exits, max_size=n_exits))).tolist()
    logits = torch.randn(n_exits, 30, 3, generator=generator).numpy()
    calibration = HeldOut("k", {}, np.zeros((30, 32), dtype=np.uint8), logits)
    return pool([some() for _ in range(draw(st.integers(1, 3)))], clean, costs), calibration


@settings(max_examples=30)
@given(pools(), st.integers(1, 3))
def test_no_rule_leaves_the_bounds(made, n_points):
    stored, calibration = made
    (curve,) = sweep(stored, calibration, n_points)
    assert len(curve.points) == n_points + 2
    for point in curve.points:
        assert (point.judged.worst <= point.judged.correct).all()
        assert (curve.any_exit_robust <= point.judged.worst).all()
        assert stored.mmacs[0] <= point.mmacs * (1 + 1e-9) and point.mmacs <= stored.mmacs[-1] * (1 + 1e-9)
    for point, k in ((curve.points[0], 0), (curve.points[-1], len(stored.mmacs) - 1)):
        survived = right(stored.clean, k)
        assert (point.judged.exits == k).all() and (point.judged.correct == survived).all()
        for found in stored.attacked:
            survived = survived & (right(found, k) | ~found.within)
        assert (point.judged.worst == survived).all()


def right(found, k):
    """Which images exit k alone classifies right."""
    return (found.logits[k].argmax(-1) == found.labels).numpy()


@settings(max_examples=30)
@given(pools())
def test_more_images_can_only_lower_the_worst_case(made):
    stored, calibration = made
    fewer = replace(stored, attacked=stored.attacked[:1])
    for point in sweep(stored, calibration, 2)[0].points:
        assert (point.judged.worst <= fewer.judge(point.policy).worst).all()


def test_thresholds_at_the_infinities_are_the_ends():
    stored = pool([images(FOUND)])
    for text, k in ((np.inf, 1), (-np.inf, 2)):
        swept, fixed = stored.judge(EntropyPolicy((text,))), stored.judge(FixedExit(k))
        assert (swept.worst == fixed.worst).all() and (swept.exits == fixed.exits).all()


def test_targets_lie_between_the_ends_and_can_be_typed():
    found = targets((17.61312, 39.5, 101.108864), 19)
    assert len(found) == 19 and found == sorted(found)
    assert all(17.61312 < target < 101.108864 and float(f"{target:g}") == target for target in found)
    assert targets((1.0, 1.00001), 1) == [1.0]  # never out of reach


def test_a_swept_rule_is_what_the_policy_option_calibrates(tmp_path):
    """Thresholds and provenance, so that a rule of the curve can be attacked by name."""
    ready = prepare(Request("rdi_smallcnn", tmp_path, "digits", policy="entropy@mmacs=2.5", n=1, device="cpu"))
    about = {"training": "average", "weights": ready.target.weights, "mmacs": ready.target.costs.mmacs}
    record = record_of(model="rdi_smallcnn", **about)
    found = held_out(record, Store(tmp_path / "store"), tmp_path, None)
    swept = at_target(found, ready.target.costs.mmacs, 2.5, "entropy")
    assert swept.calibration == ready.target.policy.calibration
    assert swept.thresholds == pytest.approx(ready.target.policy.thresholds, rel=1e-4)


def test_one_exit_nets_are_points_for_comparison(tmp_path):
    store = evaluate(tmp_path / "store", ["average"])[1]
    (evaluation,) = evaluations(store)
    record = changed(evaluation.record, mmacs=(2.0,), mflops_paper=(2.0,), policy="exit:1", model="plain")
    single = replace(evaluation, record=record)
    with pytest.raises(UserError, match="plain: one exit, no threshold to sweep"):
        choose([evaluation, single], Wanted(models=("plain",)))
    assert len(choose([evaluation, single], Wanted())) == 2
    logits = images([CLEAN[1]])
    curve = one_exit(Pool(record, logits, (images([FOUND[1]]),), (single,)))
    (point,) = curve.points
    assert (point.mmacs, point.where, curve.rule) == (2.0, "deployed", None)
    assert point.judged.worst.tolist() == [True, False, False, False]

"""Attacks without a ball are told by their distance; in the worst case an image counts only where it lies in the ball."""

from dataclasses import replace

import numpy as np
import pytest

from exitbench.report.leaderboard.table import leaderboard
from exitbench.store.store import Store
from tests.bench.evaluated import SETTINGS, evaluate, only_evaluation, prepared, toy_policy
from tests.bench.proof.toy_claims import texts, toy_claims, verified

EPS = SETTINGS.region.eps


def wrm(gamma: float):
    return replace(prepared(toy_policy()), settings=replace(SETTINGS, method="wrm", steps=30, gamma=gamma))


def test_far_images_are_certified_and_reported_but_break_nothing(tmp_path):
    outcomes, store = evaluate(tmp_path, ["single", "average", "max_average"], wrm(0.002))
    assert all(outcome.error is None for outcome in outcomes)
    evaluation = only_evaluation(store)
    average = next(attack for attack in evaluation.attacks if attack.name == "average")
    assert average.distance > EPS and not average.within.any()
    assert not evaluation.robust(average).any() and evaluation.clean.correct.sum() > 20, "far away everything breaks"
    assert (evaluation.worst == evaluation.clean.correct).all()
    assert evaluation.strongest() is None and evaluation.first_to_break(average) == 0
    row = leaderboard([evaluation]).set_index("attack").loc["average"]
    assert row["distance"] == pytest.approx(average.distance) and row["within"] == 0
    assert row["method"] == "wrm-30, gamma 0.002, ce; not bound to the ball"


def test_near_images_count(tmp_path):
    _, store = evaluate(tmp_path, ["average"], wrm(5.0))
    evaluation = only_evaluation(store)
    (average,) = evaluation.attacks
    assert average.within.all()
    assert (evaluation.worst == evaluation.robust(average)).all()


def test_each_sample_counts_by_its_own_distance(tmp_path):
    _, store = evaluate(tmp_path, ["average"], wrm(0.12))
    evaluation = only_evaluation(store)
    (average,) = evaluation.attacks
    broken = evaluation.clean.correct & ~average.correct
    assert (broken & average.within).any() and (broken & ~average.within).any()
    assert (evaluation.worst == (evaluation.clean.correct & (average.correct | ~average.within))).all()
    assert evaluation.first_to_break(average) == (broken & average.within).sum()


def test_verification_counts_the_same_images(tmp_path):
    evaluate(tmp_path / "store", ["average"], wrm(0.12))
    evaluation = only_evaluation(Store(tmp_path / "store"))
    claims = toy_claims(tmp_path)
    assert texts(claims) == []
    assert verified(claims).worst == evaluation.worst.sum()


def test_a_matrix_of_far_images_is_not_the_whole_matrix(tmp_path):
    _, store = evaluate(tmp_path, ["single", "average", "max", "max_average", "average_max"], wrm(0.002))
    assert not only_evaluation(store).complete


def test_the_cascade_is_the_worst_case_and_completes_it(tmp_path, monkeypatch):
    """``worst`` runs the matrix on survivors; with AutoAttack stood in for, it breaks what the matrix breaks."""
    from exitbench.attacks import autoattack
    from exitbench.attacks.clean import Clean

    monkeypatch.setattr(autoattack, "AutoAttack", lambda *_: Clean())
    _, store = evaluate(tmp_path / "cascade", ["worst"])
    cascade = only_evaluation(store)
    assert [attack.name for attack in cascade.attacks] == ["cascade"] and cascade.complete
    _, store = evaluate(tmp_path / "matrix", ["single", "average", "max", "max_average", "average_max", "adaptive"])
    matrix = only_evaluation(store)
    assert np.array_equal(cascade.worst, matrix.worst)
    assert cascade.attacks[0].backwards < sum(attack.backwards for attack in matrix.attacks)


def test_seconds_are_those_of_the_attack_with_what_it_builds_on(tmp_path):
    _, store = evaluate(tmp_path, ["single", "max_average"])
    seconds = {attack.name: attack.seconds for attack in only_evaluation(store).attacks}
    assert seconds["max_average"] == pytest.approx(sum(seconds[f"single:{k}"] for k in (1, 2, 3)), abs=1e-9)
    assert min(seconds.values()) > 0

"""What the nearest stored image lacked: closed forms, and agreement with the verdicts of real evaluations."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from exitbench.api.evaluation import Evaluation
from exitbench.attacks.deployed_loss import distance_to_failure, violations
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, deployed_logits
from exitbench.models.rules.patience import PatiencePolicy
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from exitbench.scoring.between import Between, between_of, undecided
from exitbench.scoring.nearest import LACKED, Nearest, nearest_of
from tests.bench.evaluated import evaluate, only_evaluation, prepared, toy_policy
from tests.bench.test_charts import certified

EARLIER, GATE, CLASS = range(3)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return only_evaluation(evaluate(tmp_path_factory.mktemp("near"), ["average"], prepared(toy_policy()))[1])


def near(first, last, threshold=0.5):
    """Of one image with label 0 and two exits of three classes, whose first gate compares the confidence."""
    logits = torch.tensor([[first], [last]], dtype=torch.float32)
    found = nearest_of(logits, torch.tensor([0]), ConfidencePolicy((threshold,)), np.array([True]), "a test")
    return float(found.distance[0]), int(found.exit[0]), int(found.target[0]), int(found.lacked[0])


def test_at_an_open_gate_the_label_leads_by_its_margin():
    distance, exit_, target, lacked = near([9.0, 1.0, 0.0], [9.0, 0.0, 8.9])
    assert (exit_, target, lacked) == (1, 2, EARLIER), "the last exit's class is near, but the first gate is open"
    assert distance < 8.0
    distance, exit_, target, lacked = near([2.0, 1.8, -9.0], [9.0, 0.0, 0.0])
    assert (distance, exit_, target, lacked) == (pytest.approx(0.2), 0, 1, CLASS)


def test_behind_a_shut_gate_the_last_exit_lacks_its_margin():
    distance, exit_, target, lacked = near([0.0, 0.0, 0.0], [1.0, 0.7, 0.2], threshold=0.9)
    assert (distance, exit_, target, lacked) == (pytest.approx(0.3), 1, 1, CLASS)


def test_a_wrong_class_ahead_lacks_an_open_gate_by_the_gates_slack():
    policy, first = ConfidencePolicy((0.9,)), torch.tensor([[[0.0, 1.0, 0.0]]])
    distance, exit_, target, lacked = near([0.0, 1.0, 0.0], [30.0, 0.0, 0.0], threshold=0.9)
    assert (exit_, target, lacked) == (0, 1, GATE)
    assert distance == pytest.approx(-float(policy.log_slack(first))) and distance > 0


class SinceThenSure(ConfidencePolicy):
    """A rule that never leaves at exit 1, where nothing was seen before, and says so by a slack of 0 without a gradient."""

    def leaves(self, seen):
        return self.slack(seen) > 0

    def slack(self, seen):
        return seen[-1].amax(-1) - seen[-2].amax(-1) if len(seen) > 1 else torch.zeros(seen.shape[1])

    def log_slack(self, seen):
        return self.slack(seen)


@pytest.mark.parametrize("rule", [SinceThenSure((0.0, 0.0)), PatiencePolicy(2)])
def test_no_image_is_near_at_an_exit_that_none_can_take(rule):
    logits = torch.tensor([[[1.0, 0.9, 0.0]], [[3.0, 0.0, 0.0]], [[9.0, 0.0, 0.0]]])
    found = nearest_of(logits, torch.tensor([0]), rule, np.array([True]), "a test")
    assert (int(found.exit[0]), float(found.distance[0])) == (1, pytest.approx(3.0))


def test_a_broken_sample_is_at_a_negative_distance():
    distance, exit_, target, _ = near([0.0, 5.0, 0.0], [9.0, 0.0, 0.0])
    assert -5.0 <= distance < 0 and (exit_, target) == (0, 1)


@pytest.mark.parametrize("policy", [EntropyPolicy((0.6, 0.9)), ConfidencePolicy((0.6, 0.4))])
def test_the_sign_is_the_verdict_and_the_parts_are_the_distance(policy):
    logits = 3 * torch.randn(3, 500, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(500) % 4
    right = deployed_logits(logits, policy)[0].argmax(-1) == labels
    found = nearest_of(logits, labels, policy, np.ones(500, dtype=np.bool_), "a test")
    assert ((found.distance > 0) == right.numpy()).all() and 0 < right.sum() < 500
    assert torch.equal(violations(logits, labels, policy).amax(0), distance_to_failure(logits, labels, policy))


def test_images_outside_the_ball_or_without_an_answer_do_not_count():
    logits = torch.zeros(1, 3, 3)
    logits[0, :, 1] = 5.0
    logits[0, 2, 0] = torch.nan
    found = nearest_of(logits, torch.zeros(3, dtype=torch.long), ConfidencePolicy(()), np.array([True, False, True]), "a test")
    assert np.isfinite(found.distance).tolist() == [True, False, False]


def test_the_nearer_image_stays():
    some, rows = Nearest.unknown(4), np.array([1, 3])
    first = nearest_of(
        torch.tensor([[[2.0, 1.0], [2.0, 0.0]]]), torch.tensor([0, 0]), ConfidencePolicy(()), np.ones(2, bool), "one"
    )
    second = nearest_of(
        torch.tensor([[[4.0, 1.0], [1.0, 0.0]]]), torch.tensor([0, 0]), ConfidencePolicy(()), np.ones(2, bool), "other"
    )
    both = some.or_nearer(first, rows).or_nearer(second, rows)
    assert both.distance.tolist() == [np.inf, 1.0, np.inf, 1.0] and both.attack.tolist() == ["", "one", "", "other"]
    assert some.distance.tolist() == [np.inf] * 4


def test_a_stored_evaluation_is_as_near_as_its_verdicts_say(scored):
    assert ((scored.nearest.distance > 0) == scored.worst).all()
    between = between_of(scored)
    assert sorted(between.samples) == np.flatnonzero(scored.worst).tolist()
    distances = scored.nearest.distance[list(between.samples)]
    assert (np.diff(distances) >= 0).all() and between.least == distances[0] and between.median == np.median(distances)
    assert sum(between.lacked) == sum(between.exits) == len(between.samples) > 0


def test_what_is_certified_is_not_between(scored):
    some = np.flatnonzero(scored.worst)[:2].tolist()
    assert undecided(certified(scored, some)).sum() == scored.worst.sum() - 2
    whole = certified(scored, np.flatnonzero(scored.worst).tolist())
    assert between_of(whole).samples == () and "either broken or certified" in str(between_of(whole))


def test_it_is_told_in_the_terminal_on_the_page_and_in_python(scored):
    between, console = between_of(scored), Console(file=StringIO(), width=500, record=True)
    console.print(summary(scored, ["average"]))
    assert str(between) in console.export_text()
    page = to_html(boards([scored]))
    assert f"{between}." in page.replace("&#39;", "'") and "What the nearest attack lacked" in page
    table = Evaluation(scored).nearest
    assert table.index.tolist() == list(between.samples) and set(table["lacked"]) <= set(LACKED)
    assert table["exit"].between(1, scored.record.n_exits).all() and set(table["attack"]) <= {"none", "average"}
    assert Evaluation(replace(scored, nearest=None)).nearest.empty


def test_one_sample_is_told_as_one():
    one = Between((3,), 0.5, 0.5, (0, 1, 0), (0, 0, 1))
    assert str(one) == (
        "1 sample is neither broken nor certified. The nearest image to break it lacks 0.5 logits, at exit 3. "
        "What is lacking: its gate open"
    )

"""The judgement: what fails, what passes, how often by chance, and how often rightly."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.analysis.regression.judge import judge
from exitbench.stats.proportions import sign_test
from tests.bench.gate.synthetic import MMACS, bits, made


def only(judgement, name):
    (row,) = [row for row in judgement.rows if row.name == name]
    return row


def test_what_is_the_same_passes_without_a_flip():
    one = made(bits("1110"), {"average": bits("1010")})
    found = judge(one, one)
    assert (found.outcome, found.reasons, found.improvements) == ("pass", [], [])
    assert [(row.name, row.before, row.now, row.lost, row.won, row.p_lost) for row in found.rows] == [
        ("none", 3, 3, (), (), 1),
        ("average", 2, 2, (), (), 1),
        ("worst", 2, 2, (), (), 1),
    ]


def test_flips_are_named_by_sample_and_adjusted_over_all_rows():
    n = 40
    before = made(np.ones(n, bool), {"average": np.arange(n) < 30})
    now = made(np.ones(n, bool), {"average": (np.arange(n) >= 12) & (np.arange(n) < 32)})
    found = judge(before, now)
    row = only(found, "average")
    assert row.lost == tuple(range(12)) and row.won == (30, 31)
    # Four tests: clean, average and worst for verdicts, average for its cost; the worst case has the same flips.
    assert row.p_lost == pytest.approx(4 * sign_test(12, 2))
    assert row.status == "regression" and found.outcome == "fail"
    assert "average: 25.00 points lost" in found.reasons[0]


def test_better_verdicts_pass_and_ask_for_an_update():
    n = 30
    weak, strong = made(np.ones(n, bool), {"average": np.zeros(n, bool)}), made(np.ones(n, bool), {"average": np.ones(n, bool)})
    assert judge(weak, strong).outcome == "improved"
    assert judge(strong, weak).outcome == "fail"


def test_one_row_worse_fails_however_much_another_gains():
    n = 60
    before = made(np.ones(n, bool), {"average": np.arange(n) < 20, "adaptive": np.arange(n) < 40})
    now = made(np.ones(n, bool), {"average": np.arange(n) < 50, "adaptive": np.arange(n) < 20})
    found = judge(before, now)
    assert only(found, "average").status == "improvement" and only(found, "adaptive").status == "regression"
    assert found.outcome == "fail"


class TestCost:
    def cost(self, clean=0, average=0, n=40, **how):
        """``clean`` and ``average`` samples that moved from the first exit to the last."""
        before = made(np.ones(n, bool), {"average": np.ones(n, bool)})
        exits = {"none": [2] * clean + [0] * (n - clean), "average": [2] * average + [0] * (n - average)}
        return judge(before, made(np.ones(n, bool), {"average": np.ones(n, bool)}, exits), **how)

    def test_on_clean_images_the_tolerance_alone_decides(self):
        dearer = 9 / 40  # one sample from 1 to 10 mmacs
        assert self.cost(clean=1, tolerance=dearer + 1e-9).outcome == "pass"
        found = self.cost(clean=1, tolerance=dearer - 1e-9)
        assert found.outcome == "fail" and only(found, "none").cost == "over"
        assert "clean: mean mmacs up 22.5 %" in found.reasons[0]

    def test_under_attack_it_must_be_more_than_noise(self):
        assert only(self.cost(average=3), "average").cost == "within"
        found = self.cost(average=12)
        assert only(found, "average").cost == "over" and found.outcome == "fail"
        assert only(self.cost(average=12, tolerance=3.0), "average").cost == "within"

    def test_cheaper_is_an_improvement(self):
        n = 40
        before = made(np.ones(n, bool), {}, {"none": [2] * n})
        assert judge(before, made(np.ones(n, bool), {})).outcome == "improved"

    def test_costs_per_exit_are_each_evaluations_own(self):
        n = 10
        before, now = made(np.ones(n, bool), {}), made(np.ones(n, bool), {}, mmacs=[2.0, 5.0, 10.0])
        assert only(judge(before, now), "none").mmacs == (MMACS[0], 2.0)


@pytest.mark.parametrize("how", [{"failures": ["zero gradients: none"]}, {"unfinished": ["average: out of memory"]}])
def test_what_cannot_be_believed_or_did_not_finish_fails_however_good(how):
    one = made(bits("1111"), {"average": bits("0000")})
    found = judge(one, made(bits("1111"), {"average": bits("1111")}), **how)
    assert found.outcome == "fail" and (*how.values(),)[0][0] in found.reasons[0]


def test_rows_that_did_not_finish_are_not_compared():
    before = made(bits("11"), {"average": bits("11")})
    now = made(bits("11"), {})
    assert [row.name for row in judge(before, now, unfinished=["average: error"]).rows] == ["none", "worst"]


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_a_stricter_level_never_fails_more(lost, won, one, other):
    n = 80
    before = made(np.ones(n, bool), {"average": np.arange(n) < 40})
    now = made(np.ones(n, bool), {"average": (np.arange(n) >= lost) & (np.arange(n) < 40 + won)})
    strict, lax = (judge(before, now, level=level).outcome for level in sorted((one, other)))
    assert strict != "fail" or lax == "fail"


# What a seed changes. Of 1,000 samples most fall to an attack always or never; the others do so with some chance, drawn anew
# by each run. 10 % of them with a uniform chance make two runs differ on 3.3 %, about what two seeds on the shipped digits
# network do in the worst case (2.3 % of 128); 30 % stand for a retraining that is as good on other samples.
N, UNCERTAIN = 1000, 0.1


def chances(generator, uncertain):
    always = generator.random(N) < 0.4
    return np.where(generator.random(N) < uncertain, generator.random(N), always)


def run(generator, clean, average, policy):
    """One evaluation: verdicts drawn from each sample's chances, exits that change with them."""
    right = {"average": generator.random(N) < average, "adaptive": generator.random(N) < policy}
    exits = {name: np.where(generator.random(N) < 0.1, generator.integers(0, 3, N), 2 - each) for name, each in right.items()}
    return made(generator.random(N) < clean, right, exits)


@pytest.mark.parametrize(("clean_uncertain", "uncertain"), [(0.0, UNCERTAIN), (0.05, 0.3)], ids=["a re-run", "a retraining"])
def test_false_alarms_of_200_runs_without_regression_stay_at_the_level(clean_uncertain, uncertain):
    generator = np.random.default_rng(0)
    average = chances(generator, uncertain)
    policy = average * chances(generator, uncertain)
    clean = np.where(generator.random(N) < clean_uncertain, generator.random(N), 1.0)
    draws = [run(generator, clean, average, policy) for _ in range(201)]
    alarms = sum(judge(before, now).outcome == "fail" for before, now in itertools.pairwise(draws))
    assert alarms <= 0.05 * 200
    against_one = sum(judge(draws[0], now).outcome == "fail" for now in draws[1:])
    assert against_one <= 0.05 * 200


# Chance that a true loss of 3 points on the strongest attack, and so in the worst case, fails the gate at its default level:
# n = 1,000, two attacks, six tests. The figures stand in docs/gate.md.
POWER = {0.04: 0.99, 0.06: 0.93, 0.08: 0.81, 0.10: 0.70, 0.20: 0.36}


@pytest.mark.parametrize("discordant", POWER)
def test_power_against_a_loss_of_three_points_is_what_the_docs_say(discordant):
    generator = np.random.default_rng(1)
    loses, gains = (discordant + 0.03) / 2, (discordant - 0.03) / 2
    failed = 0
    trials = 200
    for _ in range(trials):
        before = np.arange(N) < N // 2
        draw = generator.random(N)
        now = np.where(before, draw >= 2 * loses, draw < 2 * gains)
        average = np.ones(N, bool)
        found = judge(
            made(average, {"average": average, "adaptive": before}), made(average, {"average": average, "adaptive": now})
        )
        failed += found.outcome == "fail"
    error = 3 * np.sqrt(POWER[discordant] * (1 - POWER[discordant]) / trials)
    assert failed / trials == pytest.approx(POWER[discordant], abs=error)

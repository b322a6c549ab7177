"""The rules of the flags, on synthetic numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.checks import controls, path, radii
from exitbench.checks.subject import Subject
from exitbench.checks.trace import Trace, ascend
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit
from exitbench.models.search_model import relative_difference
from exitbench.models.within_reach import exits_within_reach as reachable
from exitbench.scoring import black_box as stored
from exitbench.stats.proportions import sign_test
from exitbench.store.trust_result import AscentPath, AtRadius, Controls, Radii
from tests.bench import trained as toys
from tests.bench.records import changed
from tests.bench.trained import ready

ALL = tuple(range(32))


def walked(**numbers):
    """What became of the samples along the attack's path: nothing, but for these numbers."""
    nothing = {"keep": "best", "steps": 20, "on_path": (), "returned": (), "late": (), "rising": (), "switches": 0.0}
    return AscentPath(**nothing | numbers)


def subject(n=32, settings=toys.SETTINGS):
    prepared = ready(settings=settings)
    batch = prepared.split.batch(0, n)
    return Subject(prepared.target.model, prepared.target.policy, batch.x, batch.y, Noise(0, batch.indices), settings)


def trace(values, wrong=None, exits=None):
    """A path of given values ``(T + 1, B)``."""
    values = torch.tensor(values, dtype=torch.float32)
    wrong = torch.zeros(values.shape, dtype=torch.bool) if wrong is None else torch.tensor(wrong)
    exits = torch.zeros(values.shape, dtype=torch.int64) if exits is None else torch.tensor(exits)
    return Trace(values, wrong, exits, torch.zeros(values.shape[1], 1, 8, 8))


def kinds(flags):
    return {flag.name: flag.level for flag in flags}


class TestPath:
    def test_a_success_that_is_not_returned_is_seen(self):
        """Sample 0: wrong in the middle, right at the end; sample 1: wrong where the value is best."""
        wrong = [[False, False], [True, True], [False, False]]
        found = path.measure(subject(2), trace([[0.0, 0], [1, 2], [2, 1]], wrong), "best")
        assert (found.on_path, found.returned) == ((0, 1), (1,))
        assert path.measure(subject(2), trace([[0.0, 0], [1, 2], [2, 1]], wrong), "last").returned == ()

    def test_it_is_a_warning_where_it_counts(self):
        numbers = walked(keep="last", on_path=(3, 4), returned=(4,))
        assert kinds(path.flags(numbers, ALL, {3, 7}))["silent success"] == "warning"
        assert kinds(path.flags(numbers, ALL, {7}))["silent success"] == "info"
        assert "silent success" not in kinds(path.flags(changed(numbers, returned=(3, 4)), ALL, {7}))

    def test_rising_and_converged_ascents_are_told_apart(self):
        steady = [[step / 20] for step in range(21)]
        converged = [[1 - 0.5**step] for step in range(21)]
        one = subject(1)
        assert path.measure(one, trace(steady), "best").rising == (0,)
        found = path.measure(one, trace(converged), "best")
        assert (found.late, found.rising) == ((0,), ()), "the best came last, but nothing was gained"

    def test_unfinished_counts_only_what_the_evaluation_leaves_robust(self):
        numbers = walked(late=ALL, rising=ALL)
        assert kinds(path.flags(numbers, ALL, set(ALL)))["unfinished optimisation"] == "warning"
        assert kinds(path.flags(numbers, ALL, {0, 1}))["unfinished optimisation"] == "info"
        assert "unfinished optimisation" not in kinds(path.flags(numbers, ALL, set()))

    def test_switches_are_the_share_of_steps_at_which_the_exit_changes(self):
        found = path.measure(subject(2), trace([[0.0, 0]] * 5, exits=[[0, 1], [1, 1], [1, 1], [0, 1], [2, 1]]), "best")
        assert found.switches == pytest.approx(3 / 8)

    @pytest.mark.parametrize(("share", "level"), [(0.3, "info"), (0.51, "warning")])
    def test_too_many_switches_make_the_deployed_gradient_blind(self, share, level):
        numbers = walked(switches=share)
        assert kinds(path.flags(numbers, ALL, set()))["exit switches"] == level


def curve(*broken, eps=0.2, whole=ALL):
    found = [AtRadius(eps=eps * factor, broken=tuple(each)) for factor, each in zip((0.5, 1, 2), broken, strict=True)]
    return Radii(radii=tuple(found), unbounded=AtRadius(eps=1.0, broken=tuple(whole)))


class TestRadii:
    def test_a_curve_that_falls_to_nothing_is_healthy(self):
        assert kinds(radii.flags(curve(range(3), range(10), range(30)), 32, 0.2)) == {"accuracy by radius": "info"}

    def test_an_unbounded_attack_must_leave_nothing(self):
        assert kinds(radii.flags(curve(range(3), range(10), range(30), whole=range(31)), 32, 0.2)) == {
            "unbounded attack fails": "failure"
        }

    def test_accuracy_must_not_rise(self):
        assert kinds(radii.flags(curve(range(10), range(2), range(30)), 32, 0.2)) == {"accuracy rises with eps": "failure"}
        assert kinds(radii.flags(curve(range(4), range(1, 4), range(30)), 32, 0.2)) == {"accuracy by radius": "info"}, "by chance"

    def test_accuracy_must_fall_where_the_radius_is_no_smaller_than_usual(self):
        assert kinds(radii.flags(curve([], [], []), 32, 0.2)) == {"accuracy does not fall with eps": "failure"}
        assert kinds(radii.flags(curve([], [], [], eps=0.05), 32, 0.2)) == {"accuracy by radius": "info"}

    @given(st.integers(0, 12), st.integers(0, 12))
    def test_the_sign_test_is_a_probability_that_falls_with_the_lead(self, more, fewer):
        assert 0 <= sign_test(more + 1, fewer) <= sign_test(more, fewer) <= 1
        assert sign_test(more, fewer) + sign_test(fewer + 1, max(more - 1, 0)) == pytest.approx(1) or more == 0

    def test_five_of_five_are_significant_and_four_of_four_are_not(self):
        assert sign_test(5, 0) == 1 / 32 < radii.CHANCE < sign_test(4, 0)


class TestControls:
    def numbers(self, noise=0, search=0):
        return Controls(noise=tuple(range(noise)), search=tuple(range(search)))

    def test_gradients_that_beat_both_are_healthy(self):
        assert kinds(controls.flags(self.numbers(2, 8), list(range(20)), 32, set())) == {"black-box controls": "info"}

    def test_a_search_must_not_beat_gradients(self):
        found = controls.flags(self.numbers(0, 15), list(range(8)), 32, set())
        assert kinds(found)["black-box beats white-box"] == "failure"

    def test_a_baseline_is_not_refused_over_one_image(self):
        """A random search breaks 5 of 15, gradients 4: so does chance."""
        (flag,) = controls.flags(self.numbers(0, 5), list(range(4)), 15, set())
        assert (flag.name, flag.level) == ("black-box beats white-box", "warning") and "too few to tell" in flag.message

    def test_noise_must_not_do_as_well(self):
        assert kinds(controls.flags(self.numbers(20), list(range(20)), 32, set()))["noise as good as gradients"] == "failure"
        assert kinds(controls.flags(self.numbers(10), list(range(14)), 32, set()))["noise as good as gradients"] == "warning"
        assert "noise as good as gradients" not in kinds(controls.flags(self.numbers(10), list(range(15)), 32, set()))
        assert "noise as good as gradients" not in kinds(controls.flags(self.numbers(30), ALL, 32, set())), "nothing is left"

    def test_what_they_break_and_no_attack_does_is_counted(self):
        (flag,) = (f for f in controls.flags(self.numbers(2, 3), list(range(9)), 32, {1, 2, 9}) if f.level == "warning")
        assert (flag.name, flag.numbers["noise"], flag.numbers["search"]) == ("missed by attacks", 2, 3)
        assert (flag.numbers["missed by noise"], flag.numbers["missed by search"]) == (1, 2)

    @pytest.mark.parametrize("ball", [ThreatModel("Linf", 0.3), ThreatModel("L2", 2.0)])
    def test_the_search_breaks_what_it_says_and_more_than_random_points(self, ball, monkeypatch):
        seen = []
        probed = subject(settings=toys.AttackSettings(ball, steps=20, step_size=ball.eps / 4))
        fails = Subject.fails

        def stopping(self, x_adv):
            seen.append(x_adv)
            return fails(self, x_adv)

        monkeypatch.setattr(Subject, "fails", stopping)
        right = probed.rows(~fails(probed, probed.x))
        searched, random = controls.random_search(right), controls.random_points(right)
        assert searched.sum() > random.sum()
        for x_adv in seen:
            assert ((x_adv >= 0) & (x_adv <= 1)).all()
            assert (ball.distance(x_adv, right.x) <= ball.eps + 1e-5).all()

    def test_the_search_depends_neither_on_batch_nor_on_order(self):
        whole = subject(12)
        found = controls.random_search(whole)
        for mask in (torch.arange(12) < 5, torch.arange(12) >= 5):
            assert (controls.random_search(whole.rows(mask)) == found[mask]).all()


def attack(name, left, forwards, backwards):
    survived = torch.arange(100) < left
    slow = name.startswith("slowdown")
    return SimpleNamespace(name=name, survived=survived, forwards=forwards, backwards=backwards, is_slowdown=slow)


@pytest.mark.parametrize(
    ("attacks", "flagged"),
    [
        ([attack("square", 20, 100.0, 0.0), attack("average", 40, 20.0, 20.0)], True),
        ([attack("square", 39, 100.0, 0.0), attack("average", 40, 20.0, 20.0)], "warning"),
        ([attack("square", 40, 100.0, 0.0), attack("average", 40, 20.0, 20.0)], False),
        ([attack("square", 20, 100.0, 0.0)], False),
        ([attack("square", 20, 100.0, 0.0), attack("slowdown:free", 90, 20.0, 20.0)], False),
        ([attack("square", 20, 100.0, 0.0), attack("a", 40, 20.0, 20.0), attack("b", 20, 20.0, 20.0)], False),
    ],
)
def test_a_stored_attack_without_gradients_must_not_beat_all_that_take_them(attacks, flagged):
    clean = SimpleNamespace(correct=torch.ones(100, dtype=torch.bool))
    evaluation = SimpleNamespace(attacks=attacks, n=100, clean=clean, complete=True)
    assert [flag.level for flag in stored.flags(evaluation)] == ([flagged] if isinstance(flagged, str) else ["failure"] * flagged)
    evaluation.complete = False
    assert [flag.level for flag in stored.flags(evaluation)] == ["warning"] * bool(flagged)


def test_the_trace_takes_the_steps_of_pgd():
    from exitbench.attacks.pgd import PGD

    probed, settings = subject(8), toys.SETTINGS
    found = ascend(probed, settings.region, 5, 0.05)
    pgd = PGD(probed.objective, settings.region, 5, 0.05, keep="last")
    x_adv = pgd.generate(probed.model, probed.x, probed.y, noise=probed.noise, candidates=())
    assert torch.equal(found.last, x_adv)
    assert found.values.shape == found.wrong.shape == found.exits.shape == (6, 8)


def test_reachable_exits_are_those_that_some_input_can_take():
    infinity = float("inf")
    assert reachable(FixedExit(2), 3) == [1]
    assert reachable(EntropyPolicy((-infinity, 0.5)), 3) == [1, 2]
    assert reachable(EntropyPolicy((infinity, 0.5)), 3) == [0]
    assert reachable(ConfidencePolicy((infinity, 0.5)), 3) == [1, 2]


def test_differences_are_relative_to_each_exits_own_spread():
    reference = torch.tensor([[[0.0, 2.0]], [[0.0, 200.0]]])
    assert relative_difference(reference + 1, reference) == pytest.approx(0.5)
    assert relative_difference(reference, reference) == 0

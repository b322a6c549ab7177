"""What an evaluation comes to, by hand: six samples, verdicts written down one by one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from exitbench.attacks.presets import matrix_names
from exitbench.checks.flag import Flag
from exitbench.scoring import black_box
from exitbench.scoring.evaluation import Unfinished, accuracy
from exitbench.scoring.ranking import flags_text, partial_status, rank, worst_status
from exitbench.scoring.rows import rows_of
from exitbench.scoring.search import Search
from exitbench.stats.proportions import wilson
from tests.bench.evaluated import evaluate, only_evaluation, prepared

FAILURE = Flag("zero gradients", "failure", {}, "they are zero", "at exit 2")
WARNING = Flag("silent success", "warning", {}, "one was lost")
INFO = Flag("exit switches", "info", {}, "few")


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Real evaluations of two names, to put verdicts into."""
    found = {}
    for name in ("a", "b"):
        folder = tmp_path_factory.mktemp(name)
        store = evaluate(folder, ["single:1", "slowdown:free"], prepared(n=6, name=name))[1]
        found[name] = only_evaluation(store)
    return found


def bits(text):
    return np.array([character == "1" for character in text])


@pytest.fixture
def result(toys):
    def made(name, correct="111111", within="111111", wrong="000000", exits=(0, 0, 0, 0, 0, 0), **changes):
        exits = np.array(exits, dtype=np.int64)
        base = toys["a"].attacks[0]
        fields = {"correct": bits(correct), "within": bits(within), "any_exit_wrong": bits(wrong), "exits": exits}
        return replace(base, name=name, **fields, **changes)

    return made


@pytest.fixture
def evaluation(toys, result):
    def made(*attacks, clean="111111", base="a", **changes):
        changes.setdefault("survived_unfinished", bits("111111"))
        changes.setdefault("unfinished_any_exit_wrong", bits("000000"))
        return replace(toys[base], clean=result("none", clean), attacks=attacks, **changes)

    return made


def test_only_an_image_in_the_ball_breaks_a_sample(result):
    assert (result("x", "0011", "0101").survived == bits("1011")).all()


def test_the_worst_case_is_what_nothing_breaks(evaluation, result):
    x, y = result("x", "101111"), result("y", "110011", "111011")  # y's image of the fourth sample lies outside
    found = evaluation(x, y, clean="111110", survived_unfinished=bits("011111"))
    assert (found.worst == bits("000110")).all()
    assert (found.robust(y) == bits("110010")).all(), "wherever its images lie"
    assert (evaluation(clean="010101").worst == bits("010101")).all()
    assert (found.clean.correct == bits("111110")).all() and (found.survived_unfinished == bits("011111")).all()


def test_no_exit_is_broken_by_anything_stored(evaluation, result):
    attacks = (result("x", wrong="100000"), result("y", wrong="010000"))
    found = replace(evaluation(*attacks, unfinished_any_exit_wrong=bits("001000")), clean=result("none", wrong="000100"))
    assert (found.any_exit_robust == bits("000011")).all()
    assert (found.unfinished_any_exit_wrong == bits("001000")).all()


def test_the_strongest_attack_leaves_the_fewest_and_stays_in_the_ball(evaluation, result):
    weak, first, second = result("weak", "111101"), result("first", "110011"), result("second", "001111")
    outside = result("outside", "000000", "111110")
    assert evaluation(outside, weak, first, second).strongest() is first
    assert evaluation(weak, second, first).strongest() is second
    assert evaluation(outside).strongest() is None
    assert evaluation(result("x", "000011"), result("y", "111000"), clean="000111").strongest().name == "y"


def test_each_break_is_counted_for_whoever_comes_first(evaluation, result):
    x, y, z = result("x", "001111"), result("y", "010011"), result("z", "000000", "111101")
    found = evaluation(x, y, z, clean="111110")
    assert [found.first_to_break(each) for each in (found.clean, x, y, z)] == [1, 2, 2, 0]
    with pytest.raises(ValueError, match=r"^stranger is not of this evaluation$"):
        found.first_to_break(result("stranger"))


def test_complete_is_the_whole_matrix_in_the_ball_or_the_cascade(evaluation, result):
    names = sorted(matrix_names(3))
    assert evaluation(*map(result, names)).complete
    assert not evaluation(*map(result, names[1:])).complete
    assert not evaluation(*map(result, names[1:]), result(names[0], within="111110")).complete
    assert evaluation(result("cascade")).complete
    assert not evaluation(result("cascade", within="011111")).complete


def test_costs_and_exits_are_those_of_the_exits_taken(evaluation, result):
    found = evaluation()
    first, second, last = (found.mean_cost(result("x", exits=[k] * 6)) for k in range(3))
    assert 0 < first < second < last
    mixed = result("x", exits=[0, 0, 0, 2, 1, 0])
    assert found.mean_cost(mixed) == pytest.approx((4 * first + second + last) / 6)
    assert found.mean_cost(mixed, "mmacs_dense") == found.mean_cost(mixed)
    assert 0 < found.mean_cost(mixed, "mflops_paper") < found.mean_cost(mixed), "the paper leaves out the heads passed"
    assert found.exit_counts(mixed) == [4, 1, 1]
    assert found.exit_counts(result("x")) == [6, 0, 0]
    assert found.sparsity == 0
    assert found.slowed(mixed).ratio == pytest.approx(found.mean_cost(mixed) / first)
    assert found.n == 6


def test_latency_is_the_mean_of_the_medians_of_the_exits_taken(evaluation, result):
    latency = SimpleNamespace(stops=True, one=((1.0, 2.0, 9.0), (3.0, 4.0, 9.0), (7.0, 8.0, 9.0)))
    mixed = result("x", exits=[0, 0, 0, 2, 1, 0])
    assert evaluation(latency=latency).mean_latency(mixed) == pytest.approx((4 * 2 + 4 + 8) / 6)
    assert evaluation().mean_latency(mixed) is None


def test_what_it_was_computed_with_and_searched_on_is_put_together(evaluation, result):
    x = result("x", computed_with=frozenset({"torch b", "torch c"}), search=Search(frozenset({"folded"}), 2, 1))
    y = result("y", computed_with=frozenset({"torch a"}), search=Search(frozenset({"plain"}), 3, 1))
    found = replace(evaluation(x, y), clean=result("none", computed_with=frozenset({"torch c"})))
    assert found.computed_with() == "torch a; torch b; torch c"
    assert found.search == Search(frozenset({"folded", "plain"}), 5, 2)
    assert evaluation().search == Search()
    assert x.search + y.search == y.search + x.search


def test_an_attack_on_the_cost_is_told_from_one_on_the_error(toys):
    assert {attack.name: attack.is_slowdown for attack in toys["a"].attacks} == {"single:1": False, "slowdown:free": True}


def test_an_accuracy_comes_with_its_interval():
    assert accuracy(bits("1101")) == (0.75, *wilson(3, 4))


def test_checked_are_those_whose_probes_went_well(evaluation):
    probe = {"any": "probe"}
    assert evaluation(probes=(probe,)).checked
    assert not evaluation(probes=(probe,), probe_error="out of memory").checked
    assert not evaluation(probes=()).checked
    assert evaluation(flags=(WARNING, FAILURE, INFO)).failures == [FAILURE]


def test_what_keeps_a_worst_case_from_standing_is_said(evaluation, result):
    cascade, probed = result("cascade"), {"probes": ({"any": "probe"},)}
    unfinished = {"unfinished": (Unfinished("x", "not finished"), Unfinished("y", "not finished"))}
    assert worst_status(evaluation(cascade, **probed)) == "ok"
    assert worst_status(evaluation(cascade)) == "trust not checked"
    assert worst_status(evaluation(result("x"), **probed)) == "not the whole matrix"
    assert worst_status(evaluation(result("x"))) == "not the whole matrix"
    assert worst_status(evaluation(cascade, **unfinished)) == "attacks unfinished: 2" == partial_status(evaluation(**unfinished))
    flagged = evaluation(cascade, flags=(FAILURE, replace(FAILURE, where=""), WARNING), **probed, **unfinished)
    assert worst_status(flagged) == "attacks unfinished: 2; flagged: zero gradients at exit 2, zero gradients"
    assert partial_status(evaluation(cascade)) == ""


def test_flags_are_named_failures_and_warnings_alone(evaluation):
    probed = {"probes": ({"any": "probe"},)}
    assert flags_text(evaluation(flags=(FAILURE, WARNING, INFO), **probed)) == "zero gradients;silent success"
    assert flags_text(evaluation(flags=(INFO,), **probed)) == "none"
    assert flags_text(evaluation(flags=(WARNING,))) == "not checked;silent success"
    assert flags_text(evaluation()) == "not checked"


def test_the_order_of_the_board(evaluation, result):
    """Believable and whole first, by the worst case; then partial or unchecked; then flagged; then what nobody attacked."""
    probed = {"probes": ({"any": "probe"},)}
    whole, weak = result("cascade"), result("cascade", "000111")
    ordered = [
        evaluation(whole, **probed),
        evaluation(whole, base="b", **probed),
        evaluation(weak, **probed),
        evaluation(whole),
        evaluation(whole, flags=(FAILURE,), **probed),
        evaluation(weak, flags=(FAILURE,), base="b", **probed),
        evaluation(whole, flags=(FAILURE,), base="b"),
        evaluation(**probed),
    ]
    for shuffled in (ordered[::-1], ordered[3:] + ordered[:3]):
        assert [id(each) for each in sorted(shuffled, key=rank)] == [id(each) for each in ordered]
    partial, unchecked = evaluation(result("x"), **probed), evaluation(weak)
    assert rank(partial) < rank(unchecked) < rank(ordered[4])


def test_rows_are_clean_the_attacks_and_the_worst_case(evaluation, result):
    x = result("x", "101111", "011111", exits=[0, 1, 2, 0, 1, 2])
    found = rows_of(evaluation(x, result("x", "000000"), result("y", "111011"), clean="111110"))
    assert list(found) == ["none", "x", "y", "worst"]
    assert (found["none"].right == bits("111110")).all() and (found["none"].exits == 0).all()
    assert (found["x"].right == bits("101110")).all() and found["x"].exits.tolist() == [0, 1, 2, 0, 1, 2]
    assert not found["worst"].right.any() and found["worst"].exits is None


class TestBlackBox:
    """Six samples: one sample more is 16.7 points."""

    @pytest.fixture
    def white(self, result):
        return [result("single:1", "111000", backwards=20.0), result("average", "111100", backwards=20.0)]

    def test_more_than_the_strongest_with_gradients_is_a_finding_with_its_numbers(self, evaluation, result, white):
        attacks = [
            result("square", "110000", backwards=0.0, forwards=1.0),
            result("noise", "111110", backwards=0.0, forwards=1.0),
        ]
        (flag,) = black_box.flags(evaluation(*attacks, *white))
        assert (flag.name, flag.level) == ("black-box beats white-box", "warning")
        assert flag.numbers == {"points": pytest.approx(100 / 6), "p": 0.5}
        assert flag.message.startswith(
            "square takes no gradient and leaves 33.3 %; single:1, the strongest attack with gradients, leaves 50.0 %: "
            "give more --steps"
        )
        assert "6 samples are too few to tell (p = 0.5)" in flag.message

    def test_it_is_a_failure_where_samples_suffice_and_the_gradient_attacks_are_the_strongest(self, evaluation, result):
        square = result("square", "110000" * 20, "1" * 120, backwards=0.0, forwards=1.0)
        single = result("single:1", "111000" * 20, "1" * 120, backwards=20.0)
        (flag,) = black_box.flags(evaluation(square, single, clean="1" * 120))
        assert flag.level == "warning" and "too few" not in flag.message, "the matrix is not whole"
        for name in ("adaptive", "cascade"):
            strong = result(name, "1" * 120, "1" * 120, backwards=1.0)
            (flag,) = black_box.flags(evaluation(square, single, strong, clean="1" * 120))
            assert flag.level == "failure" and flag.numbers["p"] == pytest.approx(0.5**20)

    def test_two_in_a_thousand_are_forgiven_and_three_are_not(self, evaluation, result):
        white = result("average", "1" * 250 + "0" * 250, "1" * 500, backwards=20.0)
        for broken, expected in ((251, 0), (252, 1)):
            square = result("square", "0" * broken + "1" * (500 - broken), "1" * 500, backwards=0.0, forwards=9.0)
            assert len(black_box.flags(evaluation(square, white, clean="1" * 500))) == expected

    def test_as_good_is_none(self, evaluation, result, white):
        assert not black_box.flags(evaluation(result("square", "111000", backwards=0.0, forwards=9.0), *white))

    def test_what_clean_images_miss_counts_for_nobody(self, evaluation, result, white):
        square = result("square", "110000", backwards=0.0, forwards=9.0)
        assert not black_box.flags(evaluation(square, *white, clean="110000"))

    def test_an_image_outside_the_ball_is_no_success(self, evaluation, result, white):
        square = result("square", "110000", "110111", backwards=0.0, forwards=9.0)
        assert not black_box.flags(evaluation(square, *white))

    def test_no_pass_at_all_is_no_attack_and_a_slowdown_is_none_on_the_error(self, evaluation, result, white, toys):
        idle, square = (
            result("idle", "000000", backwards=0.0, forwards=0.0),
            result("square", "000000", backwards=0.0, forwards=9.0),
        )
        assert not black_box.flags(evaluation(idle, *white))
        slow = replace(toys["a"].attacks[1], correct=bits("111111"), within=bits("111111"), backwards=20.0)
        assert not black_box.flags(evaluation(square, slow))
        assert not black_box.flags(evaluation(*white)) and not black_box.flags(evaluation(square))

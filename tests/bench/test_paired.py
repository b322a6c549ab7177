"""Paired statistics: closed forms, brute force over every table of small n, and properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.stats.paired import holm, mcnemar, mean_interval, newcombe, sign_flip
from exitbench.stats.proportions import sign_test, wilson

counts = st.integers(0, 400)


def table(both, lost, won, neither):
    """``before`` and ``after`` of the four counts."""
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return np.array(before), np.array(after)


class TestMcNemar:
    @pytest.mark.parametrize(
        ("lost", "won", "p"), [(0, 0, 1), (1, 0, 1), (5, 0, 1 / 16), (10, 2, 158 / 4096), (3, 3, 1), (2, 10, 158 / 4096)]
    )
    def test_closed_forms(self, lost, won, p):
        assert mcnemar(lost, won) == pytest.approx(p)

    @pytest.mark.parametrize("n", range(9))
    def test_brute_force_over_every_way_that_coins_may_fall(self, n):
        """As extreme as (lost, won): every assignment of the n discordant pairs, counted one by one."""
        falls = [sum(heads) for heads in itertools.product((0, 1), repeat=n)]
        for lost in range(n + 1):
            one_sided = sum(heads >= lost for heads in falls) / 2**n
            two_sided = sum(abs(2 * heads - n) >= abs(2 * lost - n) for heads in falls) / 2**n
            assert sign_test(lost, n - lost) == pytest.approx(one_sided)
            assert mcnemar(lost, n - lost) == pytest.approx(two_sided)

    @given(counts, counts)
    def test_symmetric_and_a_probability_above_zero(self, lost, won):
        assert mcnemar(lost, won) == mcnemar(won, lost)
        assert 0 < mcnemar(lost, won) <= 1

    @given(counts, counts)
    def test_more_losses_are_more_evidence_and_more_gains_less(self, lost, won):
        assert sign_test(lost + 1, won) <= sign_test(lost, won) <= sign_test(lost, won + 1) <= 1

    @given(counts, counts)
    def test_the_two_tails_overlap_in_the_table_itself(self, lost, won):
        itself = math.comb(lost + won, lost) / 2 ** (lost + won)
        assert sign_test(lost, won) + sign_test(won, lost) == pytest.approx(1 + itself)

    def test_thousands_of_flips_are_counted_without_overflow_and_never_to_zero(self):
        assert 0 < mcnemar(5000, 0) < 1e-300
        assert mcnemar(5100, 4900) == pytest.approx(math.erfc(199 / 100 / math.sqrt(2)), rel=0.01)  # continuity-corrected


class TestNewcombe:
    # Method 10 in the tables of Newcombe, Statist. Med. 17 (1998).
    @pytest.mark.parametrize(
        ("cells", "low", "high"),
        [
            ((36, 12, 2, 0), 0.0569, 0.3404),
            ((20, 12, 2, 16), 0.0562, 0.3292),
            ((54, 0, 0, 0), -0.0664, 0.0664),
        ],
    )
    def test_published_intervals(self, cells, low, high):
        after, before = table(*cells)  # his difference is of the first outcome minus the second
        assert newcombe(before, after) == pytest.approx((low, high), abs=5e-5)

    @given(*[st.integers(0, 60)] * 4)
    def test_holds_the_difference_and_turns_round_with_the_pair(self, both, lost, won, neither):
        before, after = table(both, lost, won, neither + 1)
        low, high = newcombe(before, after)
        assert -1 <= low <= (won - lost) / len(before) <= high <= 1
        assert newcombe(after, before) == pytest.approx((-high, -low))

    @given(st.integers(1, 80), st.integers(1, 80))
    def test_uncorrelated_is_the_square_and_add_interval_of_two_wilsons(self, right, wrong):
        """If all are right before, the correlation is unknown and the half-widths add in squares."""
        before, after = table(right, wrong, 0, 0)
        n, low, _ = right + wrong, *newcombe(before, after)
        below = right / n - wilson(right, n)[0]
        assert low == pytest.approx(max(-1, -wrong / n - below))  # Wilson's upper end at n of n is 1

    def test_covers_the_true_difference_about_as_often_as_it_says(self):
        generator = np.random.default_rng(0)
        held = 0
        for _ in range(400):
            cells = generator.choice(4, size=150, p=(0.5, 0.12, 0.06, 0.32))
            low, high = newcombe(np.isin(cells, (0, 1)), np.isin(cells, (0, 2)))
            held += low <= -0.06 <= high
        assert 0.92 <= held / 400 <= 0.98


class TestHolm:
    def test_steps_down(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    @given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
    def test_between_the_raw_value_and_bonferronis_in_the_same_order(self, values):
        adjusted = holm(values)
        assert all(p <= q <= min(1, len(values) * p) + 1e-12 for p, q in zip(values, adjusted, strict=True))
        order = np.argsort(values, kind="stable")
        assert (np.diff(np.array(adjusted)[order]) >= 0).all()

    def test_of_nothing_is_nothing(self):
        assert holm([]) == []


class TestSignFlip:
    @pytest.mark.parametrize("values", [(3.0, 1.0, 2.0, -1.0), (5.0, 5.0, 5.0, 5.0, 5.0, 5.0), (0.0, 2.0, -1.0, 0.5, 0.5)])
    def test_agrees_with_every_flip_counted(self, values):
        moved = [abs(value) for value in values if value]
        flips = list(itertools.product((-1, 1), repeat=len(moved)))
        as_high = sum(sum(s * m for s, m in zip(signs, moved, strict=True)) >= sum(values) - 1e-9 for signs in flips)
        assert sign_flip(np.array(values)) == pytest.approx(as_high / len(flips), abs=0.012)

    def test_no_rise_is_no_evidence_and_an_equal_one_is_the_sign_tests(self):
        assert sign_flip(np.zeros(5)) == sign_flip(np.array([-1.0, 0.5])) == 1
        assert sign_flip(np.ones(8)) == pytest.approx(sign_test(8, 0), abs=2e-3)

    def test_is_the_same_every_time_and_never_zero(self):
        values = np.random.default_rng(3).normal(1, 1, 200)
        assert 0 < sign_flip(values) == sign_flip(values) < 1e-4


def test_the_interval_of_a_mean():
    low, high = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (low + high) / 2 == 2.5
    assert high - low == pytest.approx(2 * 1.959964 * math.sqrt(5 / 3) / 2)
    assert mean_interval(np.array([2.0])) == (2, 2)

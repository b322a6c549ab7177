"""Every statistic that is printed, against scipy's or, where scipy has none, against its definition in scipy's parts."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from exitbench.stats.paired import DRAWS, holm, mcnemar, mean_interval, newcombe, sign_flip
from exitbench.stats.proportions import sign_test, wilson
from tests.bench.test_paired import table

sizes = st.one_of(st.integers(1, 60), st.integers(1, 20_000))
counts = st.one_of(st.integers(0, 40), st.integers(0, 5_000))


@st.composite
def proportions(draw):
    """Successes of n, the ends as likely as all between."""
    n = draw(sizes)
    return draw(st.one_of(st.just(0), st.just(n), st.integers(0, n))), n


@given(proportions())
def test_wilsons_interval_is_scipys(drawn):
    successes, n = drawn
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 10_000])
def test_wilsons_interval_in_closed_form_at_the_ends(n):
    z2 = stats.norm.ppf(0.975) ** 2
    assert wilson(0, n) == (0, pytest.approx(z2 / (n + z2)))
    assert wilson(n, n) == (pytest.approx(n / (n + z2)), 1)


def agrees(found, exact):
    """Ours is exact in whole numbers; scipy's underflows to 0 where an event is next to impossible."""
    return found == pytest.approx(exact, rel=1e-8) if exact > 1e-280 else 0 < found < 1e-240


@given(counts, counts)
def test_the_sign_test_is_the_exact_binomial_test(more, fewer):
    n = more + fewer
    expected = stats.binomtest(more, n, 0.5, alternative="greater").pvalue if n else 1.0
    assert agrees(sign_test(more, fewer), expected)


@given(counts, counts)
def test_mcnemars_test_is_the_two_sided_binomial_test_on_the_discordant_pairs(lost, won):
    expected = stats.binomtest(lost, lost + won, 0.5).pvalue if lost + won else 1.0
    assert agrees(mcnemar(lost, won), expected)


@pytest.mark.parametrize(("lost", "won"), [(10, 1065), (0, 1074), (300, 1200)])
def test_where_scipy_underflows_the_fraction_is_still_right(lost, won):
    n = lost + won
    assert mcnemar(lost, won) == pytest.approx(float(Fraction(2 * sum(math.comb(n, k) for k in range(lost + 1)), 2**n)), rel=1e-9)


@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p_values):
    """A hypothesis falls where Bonferroni rejects every set of hypotheses that holds it (Marcus, Peritz & Gabriel, 1976)."""
    every = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in itertools.combinations(every, size)]
    bonferroni = {chosen: min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets}
    expected = [max(p for chosen, p in bonferroni.items() if i in chosen) for i in every]
    assert holm(p_values) == pytest.approx(expected)


def near(p):
    """Six standard deviations of a share counted in ``DRAWS`` random draws, the observed one added."""
    return 6 * math.sqrt(p * (1 - p) / DRAWS) + 1.5 / DRAWS


@settings(max_examples=40)
@given(st.lists(st.sampled_from([-4.0, -2.5, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=2, max_size=9))
def test_sign_flips_agree_with_scipys_exact_permutation_test(values):
    differences = np.array(values)
    exact = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", alternative="greater", vectorized=True, n_resamples=np.inf
    ).pvalue
    found = sign_flip(differences)
    assert found == pytest.approx(exact, abs=near(exact)) or (found == 1 and differences.sum() <= 0)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(1e-3, 1e3))
def test_sign_flips_of_one_size_are_the_sign_test(more, fewer, size):
    found = sign_flip(np.array([size] * more + [-size] * fewer))
    exact = sign_test(more, fewer)
    assert found == pytest.approx(exact, abs=near(exact)) if more > fewer else found == 1


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=50).filter(lambda values: np.std(values) > 1e-6))
def test_the_interval_of_a_mean_is_scipys(values):
    expected = stats.norm.interval(0.95, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(np.array(values)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(*[st.integers(0, 80)] * 4)
def test_newcombes_interval_from_its_parts(both, lost, won, neither):
    """Method 10 as the paper writes it, of scipy's Wilson intervals and scipy's correlation, for every table."""
    n = both + lost + won + neither
    if n == 0:
        return
    before, after = table(both, lost, won, neither)
    first, second = (stats.binomtest(int(side.sum()), n).proportion_ci(0.95, method="wilson") for side in (after, before))
    phi = 0.0
    if len(set(before)) == len(set(after)) == 2:
        phi = stats.pearsonr(before, after).statistic
        excess = both * neither - lost * won
        phi *= max(excess - n / 2, 0) / excess if excess > 0 else 1
    p, q = after.mean(), before.mean()
    low = math.sqrt((p - first.low) ** 2 - 2 * phi * (p - first.low) * (second.high - q) + (second.high - q) ** 2)
    high = math.sqrt((first.high - p) ** 2 - 2 * phi * (first.high - p) * (q - second.low) + (q - second.low) ** 2)
    assert newcombe(before, after) == pytest.approx((max(-1, p - q - low), min(1, p - q + high)), abs=1e-9)

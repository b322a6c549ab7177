import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.stats.proportions import wilson


@given(st.integers(1, 2000), st.data())
def test_the_ends_solve_wilsons_equation(n, data):
    """An end q of the score interval satisfies |p - q| = z * sqrt(q (1 - q) / n)."""
    successes = data.draw(st.integers(0, n))
    for end in wilson(successes, n):
        assert 0 <= end <= 1
        assert abs(successes / n - end) == pytest.approx(1.959963984540054 * (end * (1 - end) / n) ** 0.5, abs=1e-7)


def test_the_ends_meet_zero_and_one():
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == 1


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_are_none_are_refused(successes, n):
    with pytest.raises(ValueError, match="no interval"):
        wilson(successes, n)

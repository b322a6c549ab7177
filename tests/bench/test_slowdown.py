"""The figures of slowdown against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.scoring.slowdown import efficacy, slowed

COSTS = (1.0, 2.0, 4.0)


def exits(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def test_ratio_and_savings_by_hand():
    found = slowed(exits(2, 1, 1), exits(0, 2, 2), COSTS)
    assert found.ratio == pytest.approx(3 / 2)  # mean 3 after 2
    assert found.savings_erased == pytest.approx((3 - 2) / (4 - 2))
    # left: 0 at 1/4, 1/2 at 1/2, 1 at 1
    assert found.efficacy == pytest.approx(0 + (1 / 4) * (1 / 4) + (1 / 2) * (3 / 4))


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        (exits(5, 0, 0), 1 - 1 / 8),  # all at once: 1 - c_1 / 2 c_K
        (exits(0, 0, 5), (1 - 1 / 2) / 2),  # all at the last: (1 - c_{K-1} / c_K) / 2
        (exits(1, 1, 2), 1 / 32 + (1 / 4) * (3 / 8) + (1 / 2) * (3 / 4)),
    ],
)
def test_efficacy_by_hand(taken, expected):
    assert efficacy(taken, COSTS) == pytest.approx(expected)


def test_nothing_changed():
    found = slowed(exits(2, 1, 1), exits(2, 1, 1), COSTS)
    assert (found.ratio, found.savings_erased) == (1, 0)


def test_all_sent_to_the_last_exit():
    found = slowed(exits(2, 1, 1), exits(0, 0, 4), COSTS)
    assert (found.ratio, found.savings_erased) == (2, 1)


def test_where_clean_inputs_save_nothing_none_can_be_erased():
    """A mean of these costs is not the cost itself in floating point: the guard must not rest on a difference."""
    assert slowed(exits(0, 0, 7), exits(0, 0, 7), (0.1, 0.2, 0.3)).savings_erased is None
    assert slowed(exits(0, 0, 2), exits(1, 0, 1), COSTS).savings_erased is None


def test_one_exit_has_no_savings_and_no_efficacy():
    found = slowed(exits(3), exits(3), (83.3,))
    assert (found.ratio, found.savings_erased, found.efficacy) == (1, None, None)


def test_two_exits_have_an_efficacy():
    found = slowed(exits(1, 1), exits(0, 2), (1.0, 2.0))
    assert (found.ratio, found.savings_erased, found.efficacy) == (pytest.approx(4 / 3), 1, 0.25)


taken = st.lists(st.integers(0, 3), min_size=1, max_size=30).map(np.array)
costs = st.lists(st.floats(0.01, 10), min_size=4, max_size=4).map(lambda steps: tuple(np.cumsum(steps).tolist()))


@given(taken, taken, costs)
def test_bounds(clean, attacked, per_exit):
    found = slowed(clean, attacked, per_exit)
    assert found.ratio > 0
    assert found.savings_erased is None or found.savings_erased <= 1 + 1e-9
    assert (1 - per_exit[-2] / per_exit[-1]) / 2 - 1e-9 <= found.efficacy <= 1 - per_exit[0] / per_exit[-1] / 2 + 1e-9


@given(taken, costs, st.data())
def test_sending_one_input_further_never_raises_the_efficacy(clean, per_exit, data):
    later = clean.copy()
    row = data.draw(st.integers(0, len(clean) - 1))
    later[row] = data.draw(st.integers(int(clean[row]), 3))
    assert efficacy(later, per_exit) <= efficacy(clean, per_exit) + 1e-12
    assert slowed(clean, later, per_exit).ratio >= 1 - 1e-12


@given(taken, costs, st.floats(0.1, 100))
def test_the_unit_of_cost_does_not_matter(clean, per_exit, unit):
    scaled = tuple(unit * cost for cost in per_exit)
    assert efficacy(clean, scaled) == pytest.approx(efficacy(clean, per_exit))


@pytest.mark.parametrize("bad", [(), (0.0, 1.0, 2.0), (2.0, 1.0, 3.0)])
def test_costs_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="must not fall"):
        slowed(exits(1, 1, 1), exits(1, 1, 1), bad)
    with pytest.raises(ValueError, match=r"^figures of slowdown need samples, there are none$"):
        efficacy(np.array([], dtype=np.int64), COSTS)


def test_exits_of_the_same_cost_save_nothing_and_erase_nothing():
    found = slowed(exits(1, 2, 0), exits(0, 3, 0), (5.0, 5.0, 5.0))
    assert (found.ratio, found.savings_erased) == (1.0, None)
    assert slowed(exits(1, 2, 0), exits(0, 0, 3), (2.0, 5.0, 5.0)).savings_erased == pytest.approx(1.0)

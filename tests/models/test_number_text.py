"""Costs are written with their decimals, and never as nothing."""

import pytest

from exitbench.models.number_text import cost_text


@pytest.mark.parametrize(
    ("cost", "decimals", "text"),
    [
        (101.123, 2, "101.12"),
        (0.95, 2, "0.95"),
        (0.1, 2, "0.10"),
        (0.0996, 2, "0.1"),
        (0.004321, 2, "0.0043"),
        (0.00004321, 2, "4.3e-05"),
        (0, 2, "0.00"),
        (30.77, 1, "30.8"),
        (0.187, 1, "0.19"),
    ],
)
def test_a_small_cost_keeps_two_digits(cost, decimals, text):
    assert cost_text(cost, decimals) == text

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.models.calibration import equal_share, target_cost

COSTS = (10.0, 20.0, 40.0, 80.0)
logits_of = st.integers(0, 10_000).map(lambda seed: 3 * torch.randn(4, 203, 6, generator=torch.Generator().manual_seed(seed)))


@given(logits_of, st.sampled_from(["entropy", "confidence"]))
def test_equal_shares_are_equal(logits, kind):
    counts = torch.bincount(equal_share(logits, kind)(logits), minlength=4)
    # Each gate rounds its share once, and a threshold may round to its neighbour in fp32.
    assert counts.max() - counts.min() <= 3, counts


@given(logits_of, st.floats(10, 80), st.sampled_from(["entropy", "confidence"]))
def test_a_target_cost_is_met(logits, target, kind):
    policy = target_cost(logits, COSTS, target, kind)
    mean = torch.tensor(COSTS)[policy(logits)].mean().item()
    assert mean == pytest.approx(target, abs=1.5)


@pytest.mark.parametrize("target", [9.9, 80.1, float("nan")])
def test_a_cost_out_of_reach_is_refused(target):
    with pytest.raises(ValueError, match="out of reach"):
        target_cost(torch.randn(4, 50, 6), COSTS, target)


def test_identical_inputs_do_not_break_calibration():
    policy = equal_share(torch.zeros(4, 50, 6))
    assert policy(torch.zeros(4, 50, 6)).shape == (50,)


def test_the_digest_of_the_calibration_is_part_of_the_policy():
    logits = torch.randn(4, 50, 6)
    assert equal_share(logits, calibration="a") != equal_share(logits, calibration="b")

"""Gates in closed form: where they open, how far, on which scale, and which exits lie behind them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, Policy, deployed_logits
from exitbench.models.policy_text import parse_policy, policy_text
from exitbench.models.uncertainty import FAR, confidence, entropy, log_entropy
from exitbench.models.within_reach import exits_within_reach

INFINITY = math.inf
LOGITS = torch.tensor([[0.3, -1.2, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0], [4.0, -4.0, 0.0, 1.0]], dtype=torch.float64)
P = np.exp(LOGITS.numpy()) / np.exp(LOGITS.numpy()).sum(1, keepdims=True)


class Coin(Policy):
    """Somebody's own rule: the first logit against zero."""

    def leaves(self, seen):
        return self.slack(seen) > 0

    def slack(self, seen):
        return seen[-1, :, 0] - (len(seen) - 1)

    def check(self, n_exits):
        pass


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_a_gate_at_the_very_threshold_is_shut():
    for row in LOGITS.split(1):
        for policy, value in ((EntropyPolicy, entropy(row).item()), (ConfidencePolicy, confidence(row).item())):
            assert not policy((value,)).leaves(row[None])
            assert policy((value,)).slack(row[None]) == 0
    assert EntropyPolicy((math.nextafter(entropy(row).item(), INFINITY),)).leaves(row[None])
    assert ConfidencePolicy((math.nextafter(confidence(row).item(), -INFINITY),)).leaves(row[None])


@pytest.mark.parametrize("threshold", [0.4, 1.3, -0.5, 0.0, 1e-9])
def test_slack_of_entropy_is_relative_to_the_threshold(threshold):
    value = -(P * np.log(P + 1e-5)).sum(1)
    close(EntropyPolicy((threshold,)).slack(LOGITS[None]), (threshold - value) / max(abs(threshold), 1e-6))


@pytest.mark.parametrize("threshold", [0.4, 0.9, 1.5, 1.0, 1 - 1e-9])
def test_slack_of_confidence_is_relative_to_what_the_threshold_leaves(threshold):
    close(ConfidencePolicy((threshold,)).slack(LOGITS[None]), (P.max(1) - threshold) / max(abs(1 - threshold), 1e-6))


@pytest.mark.parametrize("threshold", [0.4, 1.3, 1e-4])
def test_log_slack_of_entropy_is_the_logarithm_of_a_ratio(threshold):
    left_out = (P * np.log1p(1e-5 / P)).sum(1)
    close(EntropyPolicy((threshold,)).log_slack(LOGITS[None]), np.log((threshold + left_out) / -(P * np.log(P)).sum(1)))


@pytest.mark.parametrize("threshold", [0.3, 0.9, 1 - 1e-6])
def test_log_slack_of_confidence_is_the_logarithm_of_the_ratio_of_doubts(threshold):
    close(ConfidencePolicy((threshold,)).log_slack(LOGITS[None]), np.log((1 - threshold) / (1 - P.max(1))))


@pytest.mark.parametrize(
    ("policy", "k", "sign"),
    [
        (EntropyPolicy((0.5, INFINITY)), 1, 1),
        (EntropyPolicy((0.5, -INFINITY)), 1, -1),
        (ConfidencePolicy((0.5, -INFINITY)), 1, 1),
        (ConfidencePolicy((0.5, INFINITY)), 1, -1),
        (FixedExit(2), 1, 1),
        (FixedExit(2), 0, -1),
        (FixedExit(2), 2, -1),
    ],
)
@pytest.mark.parametrize("logits", [LOGITS, LOGITS[:, :1].float()])
def test_a_gate_that_no_input_moves_is_open_or_shut_by_a_fixed_amount(policy, k, sign, logits):
    for found, amount in (
        (policy.slack(logits.expand(k + 1, *logits.shape)), 1),
        (policy.log_slack(logits.expand(k + 1, *logits.shape)), FAR),
    ):
        assert (found.shape, found.dtype) == (logits.shape[:1], logits.dtype)
        assert (found == sign * amount).all()
    assert (policy.leaves(logits.expand(k + 1, *logits.shape)) == (sign > 0)).all()


@pytest.mark.parametrize(("threshold", "sign"), [(0.0, 1), (-0.1, 1), (1.0, -1), (1.7, -1)])
def test_log_slack_of_a_confidence_out_of_reach_is_far(threshold, sign):
    assert (ConfidencePolicy((threshold,)).log_slack(LOGITS[None]) == sign * FAR).all()


@pytest.mark.parametrize("below", [0.0, 0.5])
def test_log_slack_of_an_entropy_out_of_reach_is_far(below):
    p = torch.softmax(LOGITS[1:2], -1)
    left_out = (p * torch.log1p(1e-5 / p)).sum().item()
    assert (EntropyPolicy((-left_out - below,)).log_slack(LOGITS[1:2][None]) == -FAR).all()


def test_a_rule_of_ones_own_searches_by_its_slack():
    assert torch.equal(Coin().log_slack(torch.stack([-LOGITS, LOGITS])), LOGITS[:, 0] - 1)
    assert Coin()(torch.stack([-LOGITS, LOGITS, LOGITS])).tolist() == [2, 2, 1]


def test_entropy_and_confidence_are_over_the_last_dimension():
    stacked = torch.stack([LOGITS, -LOGITS])
    for measure in (entropy, confidence):
        assert torch.equal(measure(stacked), torch.stack([measure(LOGITS), measure(-LOGITS)]))


@given(st.integers(0, 1000), st.integers(1, 3))
def test_log_entropy_has_the_value_and_the_gradient_of_the_formula(seed, dimensions):
    shape = (3, 4, 5)[-dimensions:]
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    p = torch.softmax(logits, -1)
    formula = torch.log(-(p * p.log()).sum(-1))
    torch.testing.assert_close(log_entropy(logits), formula)
    (expected,) = torch.autograd.grad(formula.sum(), logits)
    (found,) = torch.autograd.grad(log_entropy(logits).sum(), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (FixedExit(1), [0]),
        (FixedExit(3), [2]),
        (EntropyPolicy((0.5, 0.5)), [0, 1, 2]),
        (EntropyPolicy((0.5, INFINITY)), [0, 1]),
        (EntropyPolicy((INFINITY, 0.5)), [0]),
        (EntropyPolicy((-INFINITY, -INFINITY)), [2]),
        (ConfidencePolicy((INFINITY, 0.9)), [1, 2]),
        (ConfidencePolicy((-INFINITY, INFINITY)), [0]),
    ],
)
def test_exits_within_reach(policy, expected):
    with torch.no_grad():
        assert exits_within_reach(policy, 3) == expected


def test_a_gate_that_no_input_moves_off_its_threshold_never_opens():
    class Still(Coin):
        def slack(self, seen):
            return torch.zeros(seen.shape[1])

    assert exits_within_reach(Still(), 3) == [2]


def test_one_exit_is_always_within_reach():
    assert exits_within_reach(EntropyPolicy(()), 1) == [0]


@pytest.mark.parametrize("policy", [EntropyPolicy((0.5, 0.5)), ConfidencePolicy((0.5, 0.9)), FixedExit(2)])
def test_gates_stay_on_the_device_of_their_logits(policy):
    """A GPU that computes shapes alone: tensors of two devices do not meet there either."""
    with FakeTensorMode():
        logits = torch.zeros(3, 4, 5, device="cuda")
        found = (policy.slack(logits[:1]), policy.log_slack(logits[:1]), *deployed_logits(logits, policy))
        assert all(each.device.type == "cuda" for each in found)


def test_thresholds_are_floats_and_their_number_is_checked():
    policy = EntropyPolicy([1, 2])
    assert policy.thresholds == (1.0, 2.0)
    assert all(type(threshold) is float for threshold in policy.thresholds)
    assert policy(torch.zeros(3, 2, 4)).dtype == torch.int64
    with pytest.raises(ValueError, match=r"^a network of 4 exits needs 3 thresholds, got 2$"):
        policy.check(4)
    with pytest.raises(ValueError, match=r"^a threshold is NaN$"):
        ConfidencePolicy((0.5, math.nan))
    with pytest.raises(ValueError, match=r"^exit 4 is outside 1\.\.3$"):
        FixedExit(4).check(3)
    FixedExit(1).check(1)


@pytest.mark.parametrize(
    ("text", "n_exits", "policy"),
    [
        ("exit:3", 3, FixedExit(3)),
        ("entropy:0.25,inf", 3, EntropyPolicy((0.25, INFINITY), "digest")),
        ("confidence:0.5,1e-3", 3, ConfidencePolicy((0.5, 0.001), "digest")),
        ("entropy:", 1, EntropyPolicy((), "digest")),
        ("entropy", 1, EntropyPolicy((), "digest")),
        ("confidence", 1, ConfidencePolicy((), "digest")),
    ],
)
def test_what_a_text_means(text, n_exits, policy):
    found = parse_policy(text, n_exits, "digest")
    assert found == policy
    assert parse_policy(policy_text(found), n_exits, "digest") == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("oracle:1", "unknown exit rule 'oracle'"),
        ("exit:9", "exit 9 is outside"),
        ("exit:x", ".* is not a whole number"),
        ("entropy:x:y", "one list of values"),
        ("entropy:1,2,x", ".* is not a number"),
    ],
)
def test_a_text_that_means_nothing_is_named_with_the_reason(text, why):
    forms = "entropy:T1,T2,.* . confidence:.* .* . exit:k . always-last . path/to/file.py:function"
    with pytest.raises(ValueError, match=f"^policy '{text}': {why}.*; the forms are {forms}$"):
        parse_policy(text, 3)


def test_a_rule_of_ones_own_has_no_text():
    with pytest.raises(TypeError, match=r"^Coin is not registered"):
        policy_text(Coin())

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, deployed_logits
from exitbench.models.policy_text import parse_policy, policy_text
from exitbench.models.uncertainty import confidence, entropy
from exitbench.models.views import DeployedView, ExitView
from tests.toys import batch, linear_exits, small_convolutional

logits_of = st.integers(0, 10_000).map(lambda seed: 3 * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed)))


@given(logits_of)
def test_thresholds_at_the_infinities_mean_the_last_and_the_first_exit(logits):
    assert (EntropyPolicy((-math.inf,) * 3)(logits) == 3).all()
    assert (EntropyPolicy((math.inf,) * 3)(logits) == 0).all()
    assert (ConfidencePolicy((math.inf,) * 3)(logits) == 3).all()
    assert (ConfidencePolicy((-math.inf,) * 3)(logits) == 0).all()


@given(logits_of, st.lists(st.floats(0, 2), min_size=3, max_size=3))
def test_the_first_open_gate_is_taken(logits, thresholds):
    taken = EntropyPolicy(tuple(thresholds))(logits)
    for row in range(logits.shape[1]):
        open_gates = [k for k in range(3) if entropy(logits[k, row]) < thresholds[k]]
        assert taken[row] == (open_gates[0] if open_gates else 3)


def test_entropy_and_confidence_of_a_uniform_and_a_certain_output():
    assert entropy(torch.zeros(10)).item() == pytest.approx(math.log(10), abs=1e-3)
    assert entropy(torch.tensor([50.0, 0, 0])).item() == pytest.approx(0, abs=1e-4)
    assert confidence(torch.zeros(10)).item() == pytest.approx(0.1)


def test_fixed_exit_takes_its_exit():
    logits = torch.randn(4, 3, 5)
    assert (FixedExit(2)(logits) == 1).all()
    assert (FixedExit(4)(logits) == 3).all()


@pytest.mark.parametrize("policy", [EntropyPolicy((0.1,)), ConfidencePolicy((0.1,) * 4), FixedExit(5), FixedExit(0)])
def test_a_policy_for_another_number_of_exits_is_refused(policy):
    with pytest.raises(ValueError, match="exit"):
        policy(torch.randn(4, 3, 5))


def test_a_nan_threshold_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        EntropyPolicy((math.nan,))


@given(
    st.lists(st.floats(allow_nan=False), min_size=3, max_size=3).map(tuple), st.sampled_from([EntropyPolicy, ConfidencePolicy])
)
def test_the_textual_form_is_lossless(thresholds, kind):
    policy = kind(thresholds)
    assert parse_policy(policy_text(policy), 4) == policy


@pytest.mark.parametrize("text", ["entropy:1,2", "exit:9", "exit:x", "oracle:1", "entropy:a,b,c", ""])
def test_a_bad_text_teaches_the_forms(text):
    with pytest.raises(ValueError, match="the forms are"):
        parse_policy(text, 4)


def test_the_deployed_view_stops_computing_and_gives_the_deployed_logits():
    net = small_convolutional(3)
    x = torch.rand(20, 1, 4, 4)
    middle = entropy(net(x)).median(1).values
    policy = EntropyPolicy(tuple(middle[:2].tolist()))
    wanted, taken = deployed_logits(net(x), policy)
    assert len(taken.unique()) == 3, "the test needs inputs at every exit"
    reached = []
    net.stages[2].register_forward_hook(lambda _m, _i, out: reached.append(len(out)))
    torch.testing.assert_close(DeployedView(net, policy)(x), wanted)
    assert reached == [int((taken == 2).sum())]


def test_the_deployed_view_asks_a_gpu_nothing():
    """On a fake GPU that computes only shapes, asking for a value or for the number of inputs that have left fails."""
    policy = EntropyPolicy((1.4, 1.4))
    with FakeTensorMode():
        with torch.device("cuda"):
            net, x = small_convolutional(3), torch.rand(4, 1, 4, 4)
        logits = DeployedView(net, policy)(x)
        assert logits.device.type == "cuda" and logits.shape == (4, 5)
        with pytest.raises(DynamicOutputShapeException):
            net.deployed(x, policy)


def test_gradients_of_the_deployed_view_come_from_the_exit_taken():
    net = linear_exits(3)
    x, _, _ = batch(4)
    x.requires_grad_()
    (first,) = torch.autograd.grad(DeployedView(net, FixedExit(2))(x).sum(), x)
    (second,) = torch.autograd.grad(ExitView(net, 2)(x).sum(), x)
    torch.testing.assert_close(first, second)


def test_an_exit_view_of_no_exit_is_refused():
    with pytest.raises(ValueError, match=r"1\.\.3"):
        ExitView(linear_exits(3), 4)


@given(st.integers(0, 1000), st.floats(1e-6, 2.2), st.floats(0.1, 60))
def test_log_slack_opens_where_the_gate_opens(seed, threshold, scale):
    """Also at thresholds near the 1e-5 that the deployed entropy carries, and on logits that saturate softmax."""
    logits = scale * torch.randn(30, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for value in (threshold, threshold * 1e-3, 0.0):
        policy = EntropyPolicy((value,))
        slack, found = policy.slack(logits[None]), policy.log_slack(logits[None])
        clear = (slack * max(value, 1e-6)).abs() > 1e-12
        assert ((found > 0) == policy.leaves(logits[None]))[clear].all()
    policy = ConfidencePolicy((min(threshold / 2.3 + 0.01, 0.99),))
    clear = policy.slack(logits[None]).abs() > 1e-9
    assert ((policy.log_slack(logits[None]) > 0) == policy.leaves(logits[None]))[clear].all()

"""Every exit rule against its definition, one sample at a time, and what all rules must satisfy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exitbench.attacks.deployed_loss import distance_to_failure, exit_constraints
from exitbench.models.errors import InvalidValue
from exitbench.models.gate_scores import score_of, with_score
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, Policy, SureAbove, deployed_logits
from exitbench.models.policy_text import parse_policy, policy_text
from exitbench.models.rules.ensemble import EnsemblePolicy, VotePolicy
from exitbench.models.rules.fit import check_decisions
from exitbench.models.rules.gate import GatePolicy
from exitbench.models.rules.margin import MarginPolicy
from exitbench.models.rules.patience import PatiencePolicy
from exitbench.models.rules.registry import calibrated_kinds, policy_cards
from exitbench.models.rules.temperature import Tempered, fitted_temperatures
from exitbench.models.within_reach import exits_within_reach

K, CLASSES = 4, 5
THRESHOLDS = st.lists(st.floats(0.05, 0.95), min_size=K - 1, max_size=K - 1).map(tuple)
LOGITS = st.integers(0, 10_000).map(
    lambda seed: 3 * torch.randn(K, 6, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def entropy_gate(z, t):
    p = softmax(z[-1])
    return -(p * np.log(p + 1e-5)).sum() < t


def margin_gate(z, t):
    p = np.sort(softmax(z[-1]))
    return p[-1] - p[-2] > t


def arithmetic(z):
    return np.mean([softmax(each) for each in z], axis=0)


def geometric(z):
    product = np.prod([softmax(each) for each in z], axis=0) ** (1 / len(z))
    return product / product.sum()


# A gate and a prediction, from the logits so far of one sample and the threshold of the exit.
DEFINITIONS = {
    EntropyPolicy: (entropy_gate, lambda z: softmax(z[-1])),
    ConfidencePolicy: (lambda z, t: softmax(z[-1]).max() > t, lambda z: softmax(z[-1])),
    MarginPolicy: (margin_gate, lambda z: softmax(z[-1])),
    VotePolicy: (lambda z, t: arithmetic(z).max() > t, arithmetic),
    EnsemblePolicy: (lambda z, t: geometric(z).max() > t, geometric),
    GatePolicy: (lambda z, t: z[-1].mean() > t, lambda z: softmax(z[-1])),
}


@pytest.mark.parametrize("kind", DEFINITIONS, ids=lambda kind: kind.__name__)
@given(logits=LOGITS, thresholds=THRESHOLDS)
@settings(max_examples=30)
def test_a_rule_takes_and_predicts_what_its_definition_says(kind, logits, thresholds):
    gate, prediction = DEFINITIONS[kind]
    predicted, taken = deployed_logits(logits, kind(thresholds))
    for i in range(logits.shape[1]):
        z = logits[:, i].numpy()
        expected = next((k for k in range(K - 1) if gate(z[: k + 1], thresholds[k])), K - 1)
        assert taken[i] == expected
        np.testing.assert_allclose(torch.softmax(predicted[i], -1), prediction(z[: expected + 1]), rtol=1e-9)


@given(logits=LOGITS, n=st.integers(2, K))
def test_patience_waits_for_n_heads_in_a_row(logits, n):
    named = logits.argmax(-1)
    taken = PatiencePolicy(n)(logits)
    for i in range(logits.shape[1]):
        run = 0
        expected = K - 1
        for k in range(K):
            run = run + 1 if k and named[k, i] == named[k - 1, i] else 1
            if run == n:
                expected = k
                break
        assert taken[i] == expected


RULES = st.one_of(
    *(THRESHOLDS.map(kind) for kind in DEFINITIONS),
    st.integers(2, K).map(PatiencePolicy),
    THRESHOLDS.map(lambda t: Tempered(VotePolicy(t), (0.5, 1.0, 2.0, 3.0))),
    st.integers(2, K).map(lambda n: Tempered(PatiencePolicy(n), (0.5, 1.0, 2.0, 3.0))),
    st.integers(1, K).map(FixedExit),
)


@given(logits=LOGITS, rule=RULES)
def test_slack_is_positive_where_and_only_where_the_gate_opens(logits, rule):
    for k in range(K - 1):
        seen = logits[: k + 1]
        leaves, slack, log_slack = rule.leaves(seen), rule.slack(seen), rule.log_slack(seen)
        clear = (slack.abs() > 1e-9) & (log_slack.abs() > 1e-9)
        assert ((slack > 0) == leaves)[clear].all()
        assert ((log_slack > 0) == leaves)[clear].all()


@given(logits=LOGITS, rule=RULES, seed=st.integers(0, 99))
def test_a_gate_open_for_a_wrong_prediction_is_open(logits, rule, seed):
    y = torch.randint(CLASSES, (6,), generator=torch.Generator().manual_seed(seed))
    for k in range(K - 1):
        seen = logits[: k + 1]
        assert (rule.opening(seen, y) <= rule.log_slack(seen) + 1e-12).all()
        fails = rule.leaves(seen) & (rule.predicted(seen).argmax(-1) != y)
        assert torch.equal(rule.opening(seen, y)[fails], rule.log_slack(seen)[fails])


@given(logits=LOGITS, rule=RULES, seed=st.integers(0, 99))
def test_a_sample_fails_exactly_where_no_constraint_is_violated(logits, rule, seed):
    y = torch.randint(CLASSES, (6,), generator=torch.Generator().manual_seed(seed))
    distances = distance_to_failure(logits, y, rule)
    predicted, taken = deployed_logits(logits, rule)
    clear = (distances.abs() > 1e-9).all(0)
    fails = (distances < 0).any(0)
    assert (fails == (predicted.argmax(-1) != y))[clear].all()
    assert (distances.argmin(0) == taken)[fails & clear].all()


@given(logits=LOGITS, rule=RULES)
def test_constraints_have_finite_gradients(logits, rule):
    logits = logits.clone().requires_grad_()
    y = torch.zeros(6, dtype=torch.int64)
    (gradient,) = torch.autograd.grad(exit_constraints(logits, y, rule, K).clamp(max=1e3).sum(), logits)
    assert gradient.isfinite().all()


@given(rule=RULES)
def test_the_written_form_gives_the_rule_back(rule):
    assert parse_policy(policy_text(rule), K) == rule


@given(logits=LOGITS, rule=RULES)
def test_a_sample_does_not_depend_on_the_others(logits, rule):
    predicted, taken = deployed_logits(logits, rule)
    for i in range(logits.shape[1]):
        alone, exit_alone = deployed_logits(logits[:, i : i + 1], rule)
        assert torch.equal(alone[0], predicted[i])
        assert exit_alone[0] == taken[i]


class _Split(nn.Module):
    """A stage that passes on a dictionary of features, and a head that joins them."""

    def __init__(self, seed: int, first: bool) -> None:
        super().__init__()
        self.first = first
        torch.manual_seed(seed)
        self.mix = nn.Linear(8, 8)

    def forward(self, features):
        x = features.flatten(1)[:, :8] if self.first else torch.cat([features["a"], *features["b"]], 1)
        out = torch.tanh(3 * self.mix(x))
        return {"a": out[:, :4], "b": (out[:, 4:6], out[:, 6:])}


class _Join(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, features):
        return 4 * self.out(torch.cat([features["a"], *features["b"]], 1))


@given(rule=RULES, seed=st.integers(0, 50))
@settings(max_examples=60)
def test_a_cut_network_deploys_what_the_rule_says_of_all_logits(rule, seed):
    net = MultiExitNet([_Split(seed + k, k == 0) for k in range(K)], [_Join(seed + k) for k in range(K)]).double().eval()
    x = torch.rand(12, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        torch.testing.assert_close(net.deployed(x, rule), deployed_logits(net(x), rule)[0])


@given(logits=LOGITS, scores=st.lists(st.floats(-30, 30), min_size=6, max_size=6))
def test_scores_travel_in_the_logits_without_changing_the_softmax(logits, scores):
    score = torch.tensor(scores, dtype=torch.float64)
    carried = with_score(logits, score)
    torch.testing.assert_close(score_of(carried), score.expand(K, 6))
    torch.testing.assert_close(torch.softmax(carried, -1), torch.softmax(logits, -1))


def test_temperatures_are_those_with_the_smallest_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1, 20_000, CLASSES, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(torch.softmax(logits[0], -1), 1, generator=generator)[:, 0]
    found = fitted_temperatures(torch.cat([logits, 3 * logits, logits / 4]), labels)
    np.testing.assert_allclose(found, (1.0, 3.0, 0.25), rtol=0.05)
    assert found[1] == pytest.approx(3 * found[0], rel=1e-3)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("patience:9", "9 heads that agree are more than the network's 4 exits"),
        ("patience:1", "at least 2, got 1"),
        ("patience", "takes one number of heads"),
        ("patience:2,3", "takes one number of heads"),
        ("margin:0.5", "needs 3 thresholds, got 1"),
        ("vote:0.5,0.5,nan", "a threshold is NaN"),
        ("entropy:1,2,3:temperature=1,1,1", "needs 4 temperatures, got 3"),
        ("entropy:1,2,3:temperature=1,1,1,0", "temperatures are positive"),
        ("entropy:1,2,3:scale=2", "the only option is temperature"),
        ("entropy:1,2,3:temperature=1,1,1,1:temperature=1,1,1,1", "the only option is temperature"),
        ("patience:\uff12", "is not a whole number"),
        ("entropy:\uff11,2,3", "is not a number"),
        ("patienc:2", "did you mean 'patience'"),
        ("always-last:2", "always-last takes no values"),
        ("rules.py", "written path/to/file.py:function, with nothing behind it"),
        ("rules.py:make:temperature=1,1,1,1", "written path/to/file.py:function, with nothing behind it"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_with_the_reason(text, why):
    with pytest.raises(InvalidValue) as refused:
        parse_policy(text, K)
    assert why in str(refused.value)
    assert str(refused.value).startswith(f"policy {text!r}")


def test_the_last_exit_has_a_name_for_any_network():
    assert parse_policy("always-last", 1) == FixedExit(1)
    assert parse_policy("always-last", 7) == FixedExit(7)


def test_every_rule_is_listed_with_its_form():
    forms = {card.name: card.form for card in policy_cards().values()}
    assert list(forms)[:3] == ["entropy", "confidence", "margin"]
    assert forms["patience"] == "patience:n"
    calibrated = list(calibrated_kinds())
    assert calibrated == [name for name in forms if name in calibrated], "in the order of the listing"
    assert {name for name, form in forms.items() if "T1" in form} | {"patience"} == set(calibrated)


def test_exits_before_patience_is_up_are_out_of_reach():
    assert exits_within_reach(PatiencePolicy(3), 4) == [2, 3]
    assert exits_within_reach(Tempered(PatiencePolicy(3), (1.0,) * 4), 4) == [2, 3]


class Hard(Policy):
    """A rule of one's own without a slack."""

    def leaves(self, seen):
        return seen[-1].argmax(-1) == 0

    def check(self, n_exits):
        pass


def test_a_rule_without_a_slack_has_no_gradient_and_every_exit_is_within_reach():
    logits = torch.randn(3, 4, CLASSES)
    assert not Hard().has_gradient
    assert exits_within_reach(Hard(), 3) == [0, 1, 2]
    assert ((Hard().slack(logits) > 0) == Hard().leaves(logits)).all()


def test_margin_at_its_ends():
    logits = torch.tensor([[[0.0, 0.0, -1.0], [2.0, 0.0, 0.0]]])
    assert MarginPolicy((0.0,)).leaves(logits).tolist() == [False, True]
    assert (MarginPolicy((0.0,)).log_slack(logits) > 0).tolist() == [False, True]
    assert MarginPolicy((-math.inf,)).leaves(logits).all()
    assert not MarginPolicy((1.0,)).leaves(logits).any()


class Lead(SureAbove):
    """A measure without a bound, in a rule that says nothing else of it."""

    @classmethod
    def sureness(cls, seen):
        return seen[-1].amax(-1) - seen[-1].mean(-1)


class Unbounded(Lead):
    saturates = False


@pytest.mark.parametrize("threshold", [-3.0, -1e-9, 0.0, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 7.0])
def test_the_unit_of_a_measure_without_a_bound_is_never_small(threshold):
    assert Unbounded((threshold,)).unit(threshold) == max(1.0, abs(threshold))
    if threshold >= 1:
        assert Lead((threshold,)).unit(threshold) == max(1.0, abs(threshold))


@given(logits=LOGITS, threshold=st.floats(-2, 5))
def test_a_slack_without_a_bound_moves_no_faster_than_its_measure(logits, threshold):
    rule = Unbounded((threshold,) * (K - 1))
    assert ((rule.slack(logits[:1]) > 0) == rule.leaves(logits[:1])).all()
    assert (rule.slack(logits[:1]).abs() <= (rule.sureness(logits[:1]) - threshold).abs() + 1e-12).all()


@pytest.mark.parametrize("kind", [ConfidencePolicy, MarginPolicy, VotePolicy, EnsemblePolicy])
def test_the_unit_of_shares_is_what_stored_results_were_computed_with(kind):
    assert [kind((t,)).unit(t) for t in (0.0, 0.75, 1.0, 1.5, -1.0)] == [1.0, 0.25, 1e-6, 0.5, 2.0]


def test_a_measure_above_one_that_counts_as_a_share_is_refused_where_that_matters(monkeypatch):
    monkeypatch.setattr("exitbench.models.rules.fit.policy_text", lambda policy: type(policy).__name__)
    logits = 3 * torch.randn(2, 8, CLASSES, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InvalidValue, match=r"policy 'Lead': sureness at exit 1 reaches .*`saturates = False`"):
        check_decisions(Lead((0.999,)), logits)
    for rule in (Lead((0.5,)), Lead((1.0,)), Unbounded((0.999,)), ConfidencePolicy((0.999,))):
        check_decisions(rule, logits)

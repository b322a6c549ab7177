"""Rules set on held-out images: to equal shares, a mean cost, an accuracy, and a risk."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitbench.models.calibration import candidates, equal_share, target_accuracy, target_cost
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import FixedExit, Thresholds, deployed_logits
from exitbench.models.rules.patience import PatiencePolicy
from exitbench.models.rules.registry import calibrated_kinds
from exitbench.target.calibrate import Method
from exitbench.target.risk import largest_loss, risk_controlled

K, CLASSES = 4, 5
COSTS = (1.0, 2.0, 4.0, 8.0)
WITH_THRESHOLDS = [kind for kind, rule in calibrated_kinds().items() if issubclass(rule, Thresholds)]


def drawn(n, seed=0, better=0.5):
    """Logits of exits that are right more and more often, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    logits = torch.randn(K, n, CLASSES, generator=generator)
    strength = torch.tensor([1.0 + better * k for k in range(K)])
    logits += strength[:, None, None] * torch.nn.functional.one_hot(labels, CLASSES)
    return logits, labels


@pytest.mark.parametrize("kind", WITH_THRESHOLDS)
def test_equal_shares_are_equal(kind):
    logits, _ = drawn(400)
    taken = torch.bincount(equal_share(logits, kind)(logits), minlength=K)
    assert (taken - 100).abs().max() <= 1


@pytest.mark.parametrize("kind", WITH_THRESHOLDS)
@given(target=st.floats(1.0, 8.0))
@settings(max_examples=10)
def test_a_mean_cost_is_reached(kind, target):
    logits, _ = drawn(400)
    cost = float(torch.tensor(COSTS)[target_cost(logits, COSTS, target, kind)(logits)].mean())
    assert cost == pytest.approx(target, abs=0.05)


@given(target=st.floats(1.0, 8.0), seed=st.integers(0, 50))
def test_patience_takes_the_member_whose_cost_is_closest(target, seed):
    logits, _ = drawn(60, seed)
    costs = torch.tensor(COSTS)
    away = {n: abs(float(costs[PatiencePolicy(n)(logits)].mean()) - target) for n in range(2, K + 1)}
    found = target_cost(logits, COSTS, target, "patience")
    assert away[found.n] == pytest.approx(min(away.values()))


@pytest.mark.parametrize("kind", list(calibrated_kinds()))
def test_an_accuracy_is_had_at_the_lowest_cost_of_the_family(kind):
    logits, labels = drawn(300)
    costs = torch.tensor(COSTS)
    reached = []
    for policy in candidates(logits, kind):
        predicted, taken = deployed_logits(logits, policy)
        reached.append((float((predicted.argmax(-1) == labels).double().mean()), float(costs[taken].mean())))
    target = sorted(accuracy for accuracy, _ in reached)[len(reached) // 2]
    policy = target_accuracy(logits, labels, COSTS, target, kind)
    predicted, taken = deployed_logits(logits, policy)
    assert float((predicted.argmax(-1) == labels).double().mean()) >= target
    assert float(costs[taken].mean()) == pytest.approx(min(cost for accuracy, cost in reached if accuracy >= target))
    with pytest.raises(InvalidValue, match="out of reach: on the calibration images, the best"):
        target_accuracy(logits, labels, COSTS, 1.0, kind)


@pytest.mark.parametrize("kind", list(calibrated_kinds()))
def test_candidates_go_from_those_that_leave_last_to_those_that_leave_first(kind):
    logits, _ = drawn(200)
    costs = [float(torch.tensor(COSTS)[policy(logits)].mean()) for policy in candidates(logits, kind)]
    assert costs == sorted(costs, reverse=True)


@given(st.integers(1, 400), st.floats(0.001, 0.5))
def test_the_bound_without_a_loss_is_the_closed_form(n, delta):
    right = torch.ones(n, dtype=torch.bool)
    assert largest_loss(right, right, delta) == pytest.approx(1 - (delta / 2) ** (1 / n), abs=1e-6)


def test_the_bound_covers_the_true_loss():
    """A rule that loses on 3 % and wins on 1 % of all images: the bound falls below 2 points in at most delta of the draws."""
    generator = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(300):
        kind = torch.rand(500, generator=generator)
        lost, won = kind < 0.03, (kind >= 0.03) & (kind < 0.04)
        last_right = lost | (torch.rand(500, generator=generator) < 0.9) & ~won
        right = (last_right & ~lost) | won
        below += largest_loss(right, last_right, 0.1) < 0.02
    assert below <= 30


def test_a_risk_is_exceeded_in_at_most_delta_of_all_calibrations():
    logits, labels = drawn(20_000, seed=7, better=0.3)
    last_right = logits[-1].argmax(-1) == labels
    exceeded = early = 0
    for seed in range(30):
        rows = torch.randint(20_000, (400,), generator=torch.Generator().manual_seed(seed))
        policy = risk_controlled(logits[:, rows], labels[rows], 0.05, 0.2, "confidence")
        predicted, taken = deployed_logits(logits, policy)
        exceeded += float(last_right.double().mean() - (predicted.argmax(-1) == labels).double().mean()) > 0.05
        early += bool((taken < K - 1).any())
    assert early > 25, "something is saved"
    assert exceeded <= 6


def test_a_risk_that_nothing_passes_is_the_last_exit():
    logits, labels = drawn(20)
    assert risk_controlled(logits, labels, 0.0, 0.05, "entropy") == FixedExit(K)


NAN = math.nan


@pytest.mark.parametrize(("loss", "delta"), [(-0.1, 0.05), (1.5, 0.05), (0.1, 0.0), (0.1, 1.0), (NAN, 0.05), (0.1, NAN)])
def test_a_risk_out_of_range_is_refused(loss, delta):
    logits, labels = drawn(20)
    with pytest.raises(InvalidValue, match="a risk is a loss in"):
        risk_controlled(logits, labels, loss, delta)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("equal", Method("equal")),
        ("mmacs=60", Method("mmacs", 60.0)),
        ("accuracy=0.9,temperature", Method("accuracy", 0.9, temperature=True)),
        ("risk=0.01,delta=0.1,temperature", Method("risk", 0.01, 0.1, temperature=True)),
        ("risk=0.01", Method("risk", 0.01, 0.05)),
    ],
)
def test_a_method_is_parsed(text, expected):
    assert Method.parsed(text) == expected


@pytest.mark.parametrize(
    "text", ["", "mmacs", "equal=3", "mmacs=60,delta=1", "risk=0.1,delta", "equal,temperature=2", "best", "equal,"]
)
def test_a_method_of_another_form_is_refused(text):
    with pytest.raises(InvalidValue):
        Method.parsed(text)

"""Rules on all exits at once are what they are exit by exit, and take as many operations on any number of exits."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from exitbench.models.at_once import AtOnce, at_once
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, Policy, deployed_logits
from exitbench.models.rules.ensemble import EnsemblePolicy, VotePolicy
from exitbench.models.rules.gate import GatePolicy
from exitbench.models.rules.margin import MarginPolicy
from exitbench.models.rules.patience import PatiencePolicy
from exitbench.models.rules.registry import policy_cards
from exitbench.models.rules.temperature import Tempered

K, CLASSES = 5, 6
ENDS = (0.4, math.inf, 0.0, -math.inf)
KINDS = (EntropyPolicy, ConfidencePolicy, MarginPolicy, GatePolicy, VotePolicy, EnsemblePolicy)
RULES = [
    *(kind((0.9, 0.5, 1.2, 0.3)) for kind in KINDS),
    *(kind(ENDS) for kind in KINDS),
    *(PatiencePolicy(n) for n in range(2, K + 1)),
    FixedExit(1),
    FixedExit(3),
    FixedExit(K),
]
RULES += [Tempered(rule, (0.5, 1.0, 2.0, 1.5, 0.7)) for rule in RULES]
ROUNDING = {torch.float64: {"rtol": 1e-12, "atol": 1e-12}, torch.float32: {"rtol": 1e-5, "atol": 1e-5}}
SUMS = (VotePolicy, EnsemblePolicy)
"""Rules that add up the exits in another order."""


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def logits_of(n_exits=K, seed=0, dtype=torch.float64, scale=3.0):
    return scale * torch.randn(n_exits, 40, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def methods(rule, y):
    return [rule.leave, rule.slack, rule.log_slack, lambda logits: rule.opening(logits, y), rule.predicted]


def test_every_shipped_rule_has_a_form_without_a_loop():
    assert {type(rule) for rule in RULES} >= {card.kind for card in policy_cards().values()}
    assert not any(type(at_once(rule)) is AtOnce for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_it_is_what_the_rule_says_exit_by_exit(rule):
    y = torch.arange(40) % CLASSES
    exact = type(getattr(rule, "rule", rule)) not in SUMS
    for logits in (logits_of(), logits_of(dtype=torch.float32), logits_of(seed=1, scale=40.0)):
        for found, wanted in zip(methods(at_once(rule), y), methods(AtOnce(rule), y), strict=True):
            one, other = found(logits), wanted(logits)
            assert one.shape == other.shape and one.dtype == other.dtype
            if exact or one.dtype == torch.bool:
                assert torch.equal(one, other)
            else:
                torch.testing.assert_close(one, other, **ROUNDING[logits.dtype])
        assert torch.equal(rule(logits), exits_taken(rule, logits))


def exits_taken(rule, logits):
    """The exit of each sample by the rule's definition: the first whose gate is open, else the last."""
    taken = torch.full(logits.shape[1:2], len(logits) - 1)
    for k in reversed(range(len(logits) - 1)):
        taken = torch.where(rule.leaves(logits[: k + 1]), k, taken)
    return taken


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("scale", [3.0, 40.0])
def test_gradients_are_those_of_the_rule_exit_by_exit(rule, scale):
    y = torch.arange(40) % CLASSES
    for found, wanted in list(zip(methods(at_once(rule), y), methods(AtOnce(rule), y), strict=True))[1:]:
        gradients = []
        for method in (found, wanted):
            logits = logits_of(scale=scale).requires_grad_()
            weights = torch.linspace(0.5, 2.0, 40, dtype=torch.float64)
            values = method(logits)
            values = (values * (weights if values.ndim == 2 else weights[:, None])).sum()
            gradients.append(torch.autograd.grad(values + 0 * logits.sum(), logits)[0])
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_exit_has_no_gate(kind):
    logits = logits_of(1)
    for method in methods(at_once(kind(())), torch.zeros(40, dtype=torch.int64))[:-1]:
        assert method(logits).shape == (0, 40)
    predicted, taken = deployed_logits(logits, kind(()))
    assert (taken == 0).all() and torch.equal(predicted.argmax(-1), logits[0].argmax(-1))


@pytest.mark.parametrize(
    "make", [lambda n: EntropyPolicy((0.5,) * n), lambda n: VotePolicy((0.5,) * n), lambda n: PatiencePolicy(2)]
)
def test_operations_do_not_grow_with_the_exits(make):
    def operations(n_exits):
        logits, y = logits_of(n_exits), torch.zeros(40, dtype=torch.int64)
        counted = []
        for _ in range(2):  # constants are made the first time
            with Operations() as mode:
                for method in methods(at_once(make(n_exits - 1)), y):
                    method(logits)
                deployed_logits(logits, make(n_exits - 1))
            counted.append(mode.count)
        return counted[1]

    assert operations(12) == operations(4) < 150


class Reckless(EntropyPolicy):
    """Somebody's rule, derived from one of ours."""

    def leaves(self, seen):
        return seen[-1, :, 0] > 0

    def slack(self, seen):
        return seen[-1, :, 0]

    def log_slack(self, seen):
        return self.slack(seen)


class WithAForm(Reckless):
    def at_once(self):
        return Doubled(self)


class Doubled(AtOnce):
    def slack(self, logits):
        return 2 * super().slack(logits)


def test_a_rule_derived_from_ours_is_asked_itself():
    logits = logits_of(3)
    rule = Reckless((1.0, 1.0))
    assert type(at_once(rule)) is AtOnce
    assert torch.equal(at_once(rule).slack(logits), logits[:-1, :, 0])
    assert torch.equal(rule(logits) == 0, logits[0, :, 0] > 0)
    assert torch.equal(at_once(WithAForm((1.0, 1.0))).slack(logits), 2 * logits[:-1, :, 0])


def test_a_rule_sees_the_exits_so_far_alone():
    class Looking(Policy):
        def leaves(self, seen):
            lengths.append(len(seen))
            return torch.zeros(seen.shape[1], dtype=torch.bool)

        def check(self, n_exits):
            pass

    lengths = []
    assert (Looking()(logits_of(4)) == 3).all() and lengths == [1, 2, 3]

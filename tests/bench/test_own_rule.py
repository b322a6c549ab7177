"""Exit rules of the user's own: where they are executed, what is checked, and what is left out without them."""

import pytest
import torch

from exitbench.models.at_once import AtOnce, is_without_loop
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import EntropyPolicy, Policy
from exitbench.models.policy_text import parse_policy, policy_text
from exitbench.models.rules import own, registry
from exitbench.models.rules.fit import check_decisions, check_rule
from exitbench.models.rules.gate import GatePolicy
from exitbench.models.rules.own import load_policy
from tests.processes import run
from tests.toys import linear_exits

RULE = """
from dataclasses import dataclass
from exitbench.models.policies import Policy

@dataclass(frozen=True)
class Sure(Policy):
    least: float

    def leaves(self, seen):
        return self.slack(seen) > 0

    def slack(self, seen):
        return seen[-1].amax(-1) - seen[-1].mean(-1) - self.least

    def check(self, n_exits):
        pass

def make():
    return Sure({least})

def other():
    return "a text"
"""


@pytest.fixture
def rule(tmp_path):
    path = tmp_path / "rules.py"
    path.write_text(RULE.replace("{least}", "2.0"))
    return path


def test_a_rule_from_a_file_is_told_from_another_and_read_back_where_it_is_loaded(rule, monkeypatch):
    found = load_policy(f"{rule}:make")
    assert parse_policy(policy_text(found), 3) == found
    assert policy_text(found).startswith("own:rules.py:make@")
    rule.write_text(RULE.replace("{least}", "3.0"))
    assert policy_text(load_policy(f"{rule}:make")) != policy_text(found)
    monkeypatch.setattr(own, "_loaded", {})
    with pytest.raises(InvalidValue, match="not executed because a record names it"):
        parse_policy(f"own:{found.where}@{found.code}", 3)


def test_a_function_that_returns_no_rule_is_named(rule):
    with pytest.raises(InvalidValue, match=r"rules.py:other returned str; it must return an exit rule"):
        load_policy(f"{rule}:other")


def test_a_run_under_a_rule_of_ones_own_and_the_reports_with_and_without_it(rule, tmp_path):
    options = ("--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "adaptive", "--n", "8", "--budget", "5")
    done = run("run", *options, "--policy", f"{rule}:make", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "policy own:rules.py:make@" in done.stdout
    (table,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    assert "own:rules.py:make@" in table.read_text()
    without = run("report", cwd=tmp_path)
    assert without.returncode == 0
    said = " ".join(without.stderr.split())
    assert "name it yourself, as --rule path/to/rules.py:make" in said and said.count("this run is left out") == 1
    assert "delete it" not in said and "the forms are" not in said
    with_it = run("report", "--rule", f"{rule}:make", cwd=tmp_path)
    assert with_it.returncode == 0 and "left out" not in with_it.stderr
    assert "own:rules.py:make@" in table.read_text()


def test_a_rule_without_a_slack_is_searched_at_random_with_a_warning(tmp_path):
    slack = RULE[RULE.index("    def slack") : RULE.index("    def check")]
    (tmp_path / "hard.py").write_text(
        RULE.replace(slack, "").replace("self.slack(seen) > 0", "seen[-1].argmax(-1) % 2 == 0").replace("{least}", "0.0")
    )
    options = ("--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "adaptive", "--n", "4", "--budget", "5")
    done = run("run", *options, "--policy", f"{tmp_path / 'hard.py'}:make", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gates without a gradient" in done.stdout
    (table,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    assert "so a random search of 20 queries follows" in table.read_text()


class Bad(Policy):
    def __init__(self, **methods):
        vars(self).update(methods)

    def leaves(self, seen):
        return self.slack(seen) > 0

    def slack(self, seen):
        return seen[-1, :, 0]

    def check(self, n_exits):
        pass


LOGITS = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0)).cumsum(1)


@pytest.mark.parametrize(
    ("methods", "why"),
    [
        ({"leaves": lambda seen: seen[-1] > 0}, r"leaves at exit 1 returns a tensor of shape \(9, 4\); it must return .* \(9,\)"),
        ({"leaves": lambda seen: seen[-1, :, 0]}, "leaves at exit 1 returns torch.float32; it must return bool"),
        ({"leaves": lambda seen: True}, "leaves at exit 1 returns bool"),
        ({"slack": lambda seen: seen[-1, :, 0] * float("nan")}, "slack at exit 1 returns NaN for 9 of 9"),
        ({"slack": lambda seen: -seen[-1, :, 0], "leaves": lambda seen: seen[-1, :, 0] > 0}, "another sign than leaves"),
        ({"leaves": lambda seen: seen[-1, :, 0] > seen[-1, :, 0].median()}, "leaves at exit 1 depends on the other samples"),
        ({"slack": lambda seen: seen[-1, :, 0] - seen[-1].mean()}, "slack at exit 1 depends on the other samples"),
        ({"log_slack": lambda seen: seen[-1, :, 0] - seen[-1].mean()}, "log_slack at exit 1 depends on the other samples"),
        ({"predicted": lambda seen: seen[-1, :, :2]}, r"predicted at exit 1 returns a tensor of shape \(9, 2\)"),
        ({"predicted": lambda seen: seen[-1] - seen[-1].mean()}, "predicted at exit 1 depends on the other samples"),
        ({"log_slack": lambda seen: -seen[-1, :, 0]}, "log_slack at exit 1 has another sign than leaves"),
        ({"opening": lambda seen, label: seen[-1, :, 0].abs() + 1}, "opening at exit 1 has another sign than leaves"),
        ({"opening": lambda seen, label: seen[-1, :, :2]}, r"opening at exit 1 returns a tensor of shape \(9, 2\)"),
        ({"opening": lambda seen, label: seen[-1, :, 0] * float("nan")}, "opening at exit 1 returns NaN for 9 of 9"),
        ({"opening": lambda seen: seen[-1, :, 0]}, r"opening at exit 1 fails \("),
        ({"leaves": lambda seen: seen[5, :, 0]}, r"leaves at exit 1 fails \(.*index 5 is out of bounds"),
    ],
)
def test_a_rule_that_cannot_be_deployed_is_refused_with_the_method_and_the_exit(methods, why, monkeypatch):
    monkeypatch.setattr("exitbench.models.rules.fit.policy_text", lambda policy: type(policy).__name__)
    with pytest.raises(InvalidValue, match=f"^policy 'Bad': .*{why}"):
        check_decisions(Bad(**methods), LOGITS)


class AtOnceOf(Bad):
    """A rule with a form of its own for all exits at once."""

    def at_once(self):
        return AtOnce(self)


@pytest.mark.parametrize(
    ("methods", "why"),
    [
        ({"leave": lambda logits: logits[:-1, :, 0] < 0}, r"at_once\(\).leave returns something else than exit by exit"),
        ({"predicted": lambda logits: logits.flip(0)}, r"at_once\(\).predicted returns something else"),
        ({"slack": lambda logits: logits[:, :, 0]}, r"at_once\(\).slack returns something else"),
        ({"leave": lambda logits: logits[7]}, r"at_once\(\).leave fails \(.*index 7 is out of bounds"),
    ],
)
def test_a_rule_that_says_otherwise_of_all_exits_at_once_is_refused(methods, why, monkeypatch):
    monkeypatch.setattr("exitbench.models.rules.fit.policy_text", lambda policy: type(policy).__name__)
    rule = AtOnceOf()
    check_decisions(rule, LOGITS)
    assert not is_without_loop(rule)
    whole = AtOnce(rule)
    vars(whole).update(methods)
    monkeypatch.setattr(AtOnceOf, "at_once", lambda self: whole)
    with pytest.raises(InvalidValue, match=f"^policy 'AtOnceOf': {why}"):
        check_decisions(rule, LOGITS)


def test_a_rule_that_can_be_deployed_is_not_refused():
    check_decisions(Bad(), LOGITS)
    check_decisions(EntropyPolicy((0.5, 1.0)), LOGITS)


@pytest.mark.parametrize("error", [ValueError("seven exits"), TypeError("seven exits"), AssertionError("seven exits")])
def test_a_rule_that_refuses_a_network_in_its_own_words_is_bad_input(error, rule, tmp_path):
    def check(n_exits):
        raise error

    found = load_policy(f"{rule}:make")
    object.__setattr__(found.rule, "check", check)
    with pytest.raises(InvalidValue, match=r"own:rules.py:make@\w+' does not take a network of 3 exits \(.*seven exits"):
        check_rule(found, linear_exits())


def test_the_words_of_a_plugins_rule_are_bad_input_too(monkeypatch):
    class Hourly(EntropyPolicy):
        @classmethod
        def of_values(cls, values, n_exits, calibration=None):
            raise ValueError("whole hours only")

    monkeypatch.setitem(registry._cards, "hourly", registry.PolicyCard("hourly", "hourly:T1,...", "", Hourly))
    with pytest.raises(InvalidValue, match=r"^policy 'hourly:1,2': whole hours only; the forms are"):
        parse_policy("hourly:1,2", 3)


def test_a_rule_on_gate_scores_needs_gate_heads():
    with pytest.raises(InvalidValue, match="the network has no gate heads"):
        check_rule(GatePolicy((0.0, 0.0)), linear_exits())

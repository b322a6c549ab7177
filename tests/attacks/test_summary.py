"""What attacks say of themselves: what they are after, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.base import Attack
from exitbench.attacks.clean import Clean
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.objectives import CE, DLR, Margin, Mean, TargetedDLR
from exitbench.attacks.presets import expand
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.models.policies import EntropyPolicy
from exitbench.models.spec import describe, digest
from exitbench.store.migrations import run_record_1_to_2

POLICY = EntropyPolicy((0.1, 0.2))
BALL = ThreatModel("Linf", 8 / 255)
SETTINGS = {
    "pgd": AttackSettings(BALL, steps=20, step_size=2 / 255),
    "odd step": AttackSettings(BALL, steps=7, step_size=0.0123, loss=Margin(), keep="last"),
    "restarts": AttackSettings(BALL, steps=20, step_size=2 / 255, restarts=3),
    "fgsm": AttackSettings(BALL, steps=20, step_size=2 / 255, method="fgsm"),
    "apgd": AttackSettings(BALL, steps=100, step_size=2 / 255, method="apgd", loss=DLR(), restarts=2),
    "apgd-t": AttackSettings(BALL, steps=100, step_size=2 / 255, method="apgd", loss=TargetedDLR()),
    "budget": AttackSettings(BALL, steps=20, step_size=2 / 255, budget=17),
}
NAMES = ["all", "worst", "autoattack:each", "torchattacks:PGD(steps=3,alpha=0.01)", "torchattacks:FGSM"]


def attacks(settings, names=NAMES):
    found, _ = expand(names, Deployment(3, POLICY, (1.0, 2.0, 3.0)), settings)
    return {"none": Clean(), **found}


def migrated(attack):
    """What a record of schema 1 is taken to say of it."""
    spec = {name: value for name, value in describe(attack).items() if name != "code"}  # which schema 1 did not have
    entry = {"name": "x", "spec": spec, "component": False, "keys": []}
    (new,) = run_record_1_to_2({"attacks": [entry]})["attacks"]
    return new["goal"], new["summary"]


@pytest.mark.parametrize("how", SETTINGS)
def test_every_attack_says_what_is_read_from_old_records_of_it(how):
    found = attacks(SETTINGS[how])
    assert len(found) > 10
    now, then = "soft gates, exit by exit, pairs of exit and class;", "soft gates, then exit by exit;"
    for attack in found.values():
        assert (attack.goal, attack.summary.replace(now, then)) == migrated(attack)


def test_wrm_says_so_as_well():
    found = attacks(AttackSettings(BALL, steps=20, step_size=2 / 255, method="wrm", gamma=0.5), ["average", "max_average"])
    assert found["average"].summary == "wrm-20, gamma 0.5, ce; not bound to the ball"
    assert all((attack.goal, attack.summary) == migrated(attack) for attack in found.values())


def test_only_slowdowns_raise_the_cost():
    found = attacks(SETTINGS["pgd"])
    assert {name for name, attack in found.items() if attack.goal == "cost"} == {
        "slowdown:free",
        "slowdown:keep_label",
        "slowdown:double_kill",
    }


@pytest.mark.parametrize(
    ("name", "how", "summary"),
    [
        ("none", "pgd", ""),
        ("single:1", "pgd", "pgd-20, step 2/255, ce, keep best"),
        ("single:2", "odd step", "pgd-7, step 0.0123, margin, keep last"),
        ("max", "restarts", "pgd-20 x3, step 2/255, ce, keep best"),
        ("average", "fgsm", "fgsm, ce"),
        ("average", "apgd", "apgd-100 x2, dlr"),
        ("average", "apgd-t", "apgd-100, dlr towards 9 classes"),
        ("max_average", "pgd", "best of 3 by mean ce; pgd-20, step 2/255, ce, keep best"),
        ("adaptive", "budget", "soft gates, exit by exit, pairs of exit and class; at most 17 gradients"),
        ("autoattack", "pgd", "standard"),
        ("torchattacks:FGSM", "pgd", "its defaults"),
        ("torchattacks:PGD(steps=3,alpha=0.01)", "pgd", "alpha=0.01, steps=3"),
        ("slowdown:free", "pgd", "gates shut, then soft gates; 25 steps each"),
    ],
)
def test_summaries_are_what_the_column_method_shows(name, how, summary):
    assert attacks(SETTINGS[how])[name].summary == summary


@dataclass(frozen=True)
class Theirs(Attack):
    """An attack of a package that says neither what it is after nor how it is run."""

    region: ThreatModel
    steps: int = 5
    kind: str = "blur"

    def generate(self, model, x, y, *, noise, candidates):
        return x


def test_an_attack_that_says_nothing_is_on_the_error_and_told_by_its_numbers():
    assert (Theirs(BALL).goal, Theirs(BALL).summary) == ("error", "kind=blur, steps=5")
    assert migrated(Theirs(BALL)) == ("error", "kind=blur, steps=5")


@pytest.mark.parametrize(
    "spec", [{}, {"type": "PGD"}, {"type": "BestOf", "attacks": []}, {"type": 3, "steps": 2}, {"type": "Slowdown"}]
)
def test_specs_that_lack_what_a_summary_tells_are_no_error(spec):
    (entry,) = run_record_1_to_2({"attacks": [{"spec": spec}]})["attacks"]
    assert isinstance(entry["summary"], str) and entry["goal"] in ("error", "cost")


@pytest.mark.parametrize("content", [{}, {"attacks": 3}, {"attacks": [None]}, {"attacks": [{"spec": []}]}])
def test_what_is_no_record_is_left_to_the_check_that_follows(content):
    assert run_record_1_to_2(content) == content


def test_the_adaptive_attack_is_described_as_it_always_was():
    """Keys of stored cells depend on it, whatever the class is called."""
    spec = describe(Adaptive(ThreatModel("Linf", 0.25), EntropyPolicy((0.5, 0.25)), 100))
    assert spec == {
        "type": "PolicyAttack",
        "version": 5,
        "region": {"type": "Ball", "norm": "Linf", "eps": 0.25},
        "policy": {"type": "EntropyPolicy", "thresholds": [0.5, 0.25], "calibration": None},
        "budget": 100,
    }
    assert digest(spec) == "8b31304196aaf383ee50bb0b3f901c867cd6f7476735f66fa2643626858d6870"


def test_a_class_that_states_its_type_is_described_by_it_and_its_children_are_not():
    @dataclass(frozen=True)
    class Renamed:
        spec_name = "Before"

    Renamed.__module__ = "exitbench.attacks.renamed"

    class Below(Renamed):
        pass

    assert describe(Renamed())["type"] == "Before" and describe(Below())["type"].endswith("Below")
    assert describe(Mean()) == {"type": "Mean"} and describe(CE()) == {"type": "CE"}

"""The names that records' specifications stand for are those that the attacks were asked for by."""

import pytest

from exitbench.attacks.deployment import Deployment
from exitbench.attacks.presets import expand
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.models.policies import EntropyPolicy, FixedExit
from exitbench.models.spec import describe
from exitbench.store.attack_spec import as_specified, is_bounded
from tests.bench.records import entry_of, record_of


@pytest.mark.parametrize("policy", [EntropyPolicy((0.5, 0.5)), FixedExit(2)], ids=["a rule", "one exit"])
def test_every_attack_of_ours_is_named_by_its_specification(policy):
    settings = AttackSettings(ThreatModel("Linf", 0.1), steps=5, step_size=0.02)
    wanted = ["all", "cascade", "autoattack:1", "torchattacks:PGDL2"]
    attacks, _ = expand(wanted, Deployment(3, policy, (1.0, 2.0, 3.0), 10), settings)
    told = tuple(entry_of("another", describe(attack)) for attack in attacks.values())
    found = as_specified(record_of(attacks=told)).attacks
    assert [each.name for each in found] == list(attacks)
    assert [each.goal for each in found] == ["cost" if name.startswith("slowdown") else "error" for name in attacks]
    assert all(is_bounded(each.spec) for each in found)

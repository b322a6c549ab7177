from dataclasses import dataclass

import pytest

from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.models.spec import canonical_json, describe, digest


def test_every_field_and_the_version_are_in_the_description():
    attack = PGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.5), steps=3, step_size=0.1)
    described = describe(attack)
    assert described["type"] == "PGD" and described["version"] == PGD.version
    assert described["objective"] == {"type": "Objective", "loss": {"type": "CE"}, "over": {"type": "Mean"}}
    assert described["region"] == {"type": "Ball", "norm": "Linf", "eps": 0.5}


def test_a_bumped_version_changes_the_digest(monkeypatch):
    attack = PGD(Objective(CE(), Mean()), ThreatModel("Linf", 0.5), steps=3, step_size=0.1)
    before = digest(attack)
    monkeypatch.setattr(PGD, "version", PGD.version + 1)
    assert digest(attack) != before


def test_key_order_does_not_matter():
    assert canonical_json({"a": 1, "b": (2, None)}) == canonical_json({"b": [2, None], "a": 1})


@dataclass(frozen=True)
class Holder:
    value: object


@pytest.mark.parametrize("value", [object(), lambda: None, {1, 2}])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(TypeError):
        describe(Holder(value))


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        describe(Holder(float("nan")))

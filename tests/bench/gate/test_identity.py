"""What may be compared, and what is said of the rest."""

from dataclasses import replace

import pytest

from exitbench.analysis.regression.changes import changes
from exitbench.analysis.regression.identity import differences
from tests.bench.gate.synthetic import bits, made

ATTACKS = {"average": bits("10"), "adaptive": bits("10")}
BASELINE = made(bits("11"), ATTACKS)


def another(**subject):
    return made(bits("11"), ATTACKS, **subject)


@pytest.mark.parametrize("free", [{"seed": 5}, {"weights": "b" * 64}, {"training": "mine"}, {"calibration": None}])
def test_what_a_gate_is_about_may_differ(free):
    assert differences(BASELINE, another(**free)) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": "toy2"}, "model toy2, the baseline has toy"),
        ({"dataset": "mnist", "data": "e" * 64}, "dataset mnist, the baseline has digits"),
        ({"norm": "L2"}, "norm L2, the baseline has Linf"),
        ({"eps": 8 / 255}, "eps 8/255, the baseline has 0.2"),
        ({"n": 3}, "n 3, the baseline has 2"),
        ({"data": "e" * 64}, "the images or labels are others: data eeeeeeeeeeee, not dddddddddddd"),
        ({"policy": "entropy:0.1,0.3"}, "policy entropy:0.1,0.3, the baseline has entropy:0.1,0.2: another system"),
        ({"policy": "exit:1", "mmacs": [1.0]}, "policy exit:1, the baseline has entropy:0.1,0.2: another system"),
    ],
)
def test_what_makes_it_another_question_is_said(other, message):
    assert message in " ".join(differences(BASELINE, another(**other)))


def test_the_same_thresholds_written_otherwise_are_the_same_policy():
    assert differences(BASELINE, another(policy="entropy:0.10,0.20")) == []


def test_under_its_own_policy_only_the_policy_may_differ():
    own = another(policy="entropy:0.7,0.7")
    assert differences(BASELINE, own, own_policy=True) == []
    assert differences(BASELINE, another(policy="entropy:0.7,0.7", n=3), own_policy=True) == ["n 3, the baseline has 2"]


def test_attacks_are_compared_by_name_and_setting():
    fewer = made(bits("11"), {"average": bits("10")})
    assert differences(BASELINE, fewer) == ["attacks average; the baseline has average, adaptive"]
    longer = replace(BASELINE, attacks={**BASELINE.attacks, "average": {**BASELINE.attacks["average"], "steps": 40}})
    assert differences(BASELINE, longer) == ["attack average: steps 40, the baseline has 20"]
    newer = replace(BASELINE, attacks={**BASELINE.attacks, "adaptive": {**BASELINE.attacks["adaptive"], "version": 2}})
    assert differences(BASELINE, newer) == ["attack adaptive: version 2, the baseline has 1"]
    reordered = replace(BASELINE, attacks=dict(reversed(BASELINE.attacks.items())))
    assert differences(BASELINE, reordered) == []


def test_an_update_says_what_changed():
    assert changes(None, BASELINE, []) == [
        "toy (average), new: clean 100.00 %, average 50.00 %, adaptive 50.00 %, worst case 50.00 %"
    ]
    assert changes(BASELINE, BASELINE, []) == ["toy (average): nothing changed"]
    now = made(bits("11"), {"average": bits("00"), "adaptive": bits("01")}, {"average": [2, 2]}, seed=3)
    lines = changes(BASELINE, now, [])
    assert "average: 50.00 -> 0.00 % (1 lost, 0 won)" in lines and "average: mean mmacs 1.00 -> 10.00" in lines
    assert "adaptive: 50.00 -> 50.00 % (1 lost, 1 won)" in lines and "seed 0 -> 3" in lines
    other = made(bits("111"), {"average": bits("000")})
    lines = changes(BASELINE, other, differences(BASELINE, other))
    assert lines[0] == "changed: n 3, the baseline has 2" and lines[-1].startswith("now: clean 100.00 %")

import pytest

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.autoattack import AutoAttack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.objectives import CE, Max, Mean, Objective, Only
from exitbench.attacks.one_exit import AdaptiveAtOneExit
from exitbench.attacks.pgd import PGD
from exitbench.attacks.presets import attack_texts, expand, matrix_names
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.attacks.slowdown import MODES, Slowdown
from exitbench.models.errors import UnknownName
from exitbench.models.policies import EntropyPolicy, FixedExit

COSTS = (1.0, 2.5, 3.0)
SETTINGS = AttackSettings(ThreatModel("Linf", 0.1), steps=4, step_size=0.025)


def names(*wanted, n_exits=3):
    return expand(wanted, Deployment(n_exits, FixedExit(n_exits), COSTS[:n_exits]), SETTINGS)


def test_all_is_the_whole_matrix():
    attacks, skipped = names("all")
    assert list(attacks) == [
        "single:1",
        "single:2",
        "single:3",
        "average",
        "max",
        "max_average",
        "average_max",
        "adaptive",
        "slowdown:free",
        "slowdown:keep_label",
        "slowdown:double_kill",
        "autoattack",
    ]
    assert not skipped


def test_definitions_are_those_of_the_design():
    attacks, _ = names("all")
    pgd = {over: PGD(Objective(CE(), over), SETTINGS.region, 4, 0.025) for over in (Only(1), Only(2), Only(3), Mean(), Max())}
    singles = tuple(pgd[Only(k)] for k in (1, 2, 3))
    assert attacks["single:2"] == pgd[Only(2)]
    assert attacks["average"] == pgd[Mean()]
    assert attacks["max"] == pgd[Max()]
    assert attacks["max_average"] == BestOf(singles, Objective(CE(), Mean()))
    starts = [PGD(Objective(CE(), Mean()), SETTINGS.region, 4, 0.025, start=start) for start in ("random", *singles)]
    assert attacks["average_max"] == BestOf(tuple(starts), Objective(CE(), Max()))
    assert attacks["adaptive"] == AdaptiveAtOneExit(SETTINGS.region, FixedExit(3))
    for mode in MODES:
        assert attacks[f"slowdown:{mode}"] == Slowdown(SETTINGS.region, FixedExit(3), COSTS, mode)
    assert attacks["autoattack"] == AutoAttack(SETTINGS.region, FixedExit(3))


def test_on_one_exit_the_forms_are_skipped_with_the_reason():
    attacks, skipped = names("all", n_exits=1)
    assert list(attacks) == ["single:1", "adaptive", "autoattack"]
    slowdowns = {"slowdown:free", "slowdown:keep_label", "slowdown:double_kill"}
    assert {s.name for s in skipped} == {"average", "max", "max_average", "average_max", *slowdowns}
    assert "one exit" in skipped[0].reason
    assert {s.reason for s in skipped if s.name in slowdowns} == {"one exit has one cost"}
    assert matrix_names(1) == set(attacks)


def test_on_one_exit_a_form_asked_for_alone_still_attacks():
    attacks, skipped = names("average", n_exits=1)
    assert list(attacks) == ["single:1"]
    assert len(skipped) == 1


def test_slowdown_is_its_three_modes():
    attacks, skipped = names("slowdown")
    assert list(attacks) == ["slowdown:free", "slowdown:keep_label", "slowdown:double_kill"] and not skipped


def test_slowdown_on_one_exit_is_no_attack_at_all():
    attacks, skipped = names("slowdown", n_exits=1)
    assert not attacks and len(skipped) == 3


def test_slowdown_without_costs_is_refused():
    with pytest.raises(ValueError, match="needs the cost of every exit"):
        expand(["slowdown"], Deployment(3, FixedExit(3)), SETTINGS)
    assert expand(["average"], Deployment(3, FixedExit(3)), SETTINGS)[0]


def test_every_form_listed_can_be_built():
    for form in attack_texts():
        attacks, _ = names(form.removesuffix(":k") + ":2" if form.endswith(":k") else form.replace("NAME", "PGD"))
        assert attacks


@pytest.mark.parametrize("name", ["single:0", "single:4", "single:x", "autoattack:9"])
def test_an_exit_the_model_has_not_is_refused(name):
    with pytest.raises(ValueError, match=r"exits are 1\.\.3"):
        names(name)


def test_an_unknown_name_brings_suggestions():
    with pytest.raises(UnknownName, match="did you mean 'average'"):
        names("averag")


def test_an_unknown_slowdown_mode_brings_suggestions():
    with pytest.raises(UnknownName, match="did you mean 'slowdown:free'"):
        names("slowdown:fre")


def test_the_budget_reaches_the_policy_attack():
    generous = AttackSettings(SETTINGS.region, steps=4, step_size=0.025, budget=400)
    for policy, kind in ((FixedExit(3), AdaptiveAtOneExit), (EntropyPolicy((0.5, 0.5)), Adaptive)):
        attacks, _ = expand(["adaptive"], Deployment(3, policy), generous)
        assert attacks["adaptive"] == kind(SETTINGS.region, policy, 400)


def test_a_former_name_asks_for_the_attack_by_its_name_of_today():
    where = Deployment(3, FixedExit(3))
    asked = {names: expand(names.split(","), where, SETTINGS)[0] for names in ("policy,average", "adaptive,average")}
    assert asked["policy,average"] == asked["adaptive,average"]
    assert list(asked["policy,average"]) == ["adaptive", "average"]
    assert list(expand(["policy", "adaptive"], where, SETTINGS)[0]) == ["adaptive"]


def test_the_command_line_has_the_attack_s_own_budget():
    from exitbench.cli.run import command

    assert {option.name: option.default for option in command.params}["budget"] == Adaptive(SETTINGS.region, FixedExit(1)).budget

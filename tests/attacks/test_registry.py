"""One door: what registers an attack of ours registers anybody's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from exitbench.attacks import registry
from exitbench.attacks.base import Attack
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.presets import attack_texts, expand, matrix, names_in_all
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.registry import find_attack, register_attack, registered
from exitbench.attacks.settings import AttackSettings
from exitbench.models.errors import InvalidValue, NameTaken, UnknownName
from exitbench.models.policies import FixedExit

DEPLOYMENT = Deployment(3, FixedExit(3), (1.0, 2.0, 3.0))
SETTINGS = AttackSettings(ThreatModel("Linf", 0.1), steps=2, step_size=0.1)


@dataclass(frozen=True)
class Still(Attack):
    """Stays where it is."""

    text: str = ""
    region: ThreatModel | None = None

    def generate(self, model, x, y, *, noise, candidates):
        return x


@pytest.fixture
def fresh(monkeypatch):
    """Whatever a test registers is forgotten afterwards."""
    assert registered()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


def only(name, deployment=DEPLOYMENT):
    attacks, skipped = expand([name], deployment, SETTINGS)
    return attacks.get(name), skipped


def test_a_registered_attack_is_named_listed_and_made(fresh):
    @register_attack("still", "stays", aliases=("frozen",))
    def still(deployment, settings):
        return Still(str(deployment.n_exits), settings.region)

    assert only("still")[0] == Still("3", SETTINGS.region)
    assert list(expand(["frozen", "average"], DEPLOYMENT, SETTINGS)[0]) == ["still", "average"]
    assert list(attack_texts())[-1] == "still" and "still" not in names_in_all()
    with pytest.raises(UnknownName, match="did you mean 'still'"):
        find_attack("stil")


def test_a_name_may_have_an_exit_or_text_behind_a_colon(fresh):
    register_attack("still:k", "at an exit")(lambda deployment, settings, k: Still(f"exit {k + 0}"))
    register_attack("mine:NAME", "any")(lambda deployment, settings, name: Still(name))
    assert only("still:2")[0] == Still("exit 2") and only("mine:a(b=1)")[0] == Still("a(b=1)")
    with pytest.raises(InvalidValue, match=r"attack 'still:4': the model's exits are 1\.\.3"):
        only("still:4")


def test_an_attack_on_the_cost_is_skipped_on_one_exit(fresh):
    register_attack("dear", "raises the cost", goal="cost")(lambda deployment, settings: Still())
    one = Deployment(1, FixedExit(1))
    attack, skipped = only("dear", one)
    assert attack is None and [(each.name, each.reason) for each in skipped] == [("dear", "one exit has one cost")]
    assert only("dear")[0] == Still()


def test_the_factories_of_0_1_still_make_attacks(fresh):
    @register_attack("old", "takes four arguments")
    def old(n_exits, settings, policy, costs):
        return Still(f"{n_exits} {policy} {costs}", settings.region)

    @register_attack("older", "under other names")
    def older(n, s, p, c):
        return Still(f"{n} {p} {c}", s.region)

    expected = Still(f"3 {FixedExit(3)} (1.0, 2.0, 3.0)", SETTINGS.region)
    assert only("old")[0] == only("older")[0] == expected


def test_whatever_another_s_factory_raises_is_bad_input_and_ours_is_a_bug(fresh, monkeypatch):
    @register_attack("broken", "raises")
    def broken(deployment, settings):
        raise KeyError("steps")

    with pytest.raises(InvalidValue, match=r"attack 'broken' of tests.attacks.test_registry: KeyError: 'steps'"):
        only("broken")
    monkeypatch.setattr(AttackSettings, "ascend", broken)
    with pytest.raises(KeyError):
        only("average")


@pytest.mark.parametrize("name", ["average", "worst", "slowdown", "single:k", "slowdown:mine", "autoattack:each", "all", "none"])
def test_a_name_of_ours_is_taken(fresh, name):
    with pytest.raises(NameTaken, match=f"attack '{name}' of tests.attacks.test_registry"):
        register_attack(name, "taken")(lambda deployment, settings: Still())


def test_twice_is_once_too_often(fresh):
    register_attack("still", "stays")(lambda deployment, settings: Still())
    with pytest.raises(NameTaken, match=r"already registered by tests\.attacks\.test_registry"):
        register_attack("still", "stays")(lambda deployment, settings: Still())


def test_nobody_else_s_attack_is_part_of_all(fresh):
    with pytest.raises(ValueError, match="cannot be part of all"):
        register_attack("still", "stays", in_all=True)(lambda deployment, settings: Still())
    with pytest.raises(ValueError, match="cannot be called"):
        register_attack("a b", "stays")(lambda deployment, settings: Still())


def test_the_attacks_on_the_error_are_the_matrix_without_slowdown():
    assert matrix(3, "error") == [name for name in matrix(3) if not name.startswith("slowdown")]
    assert matrix(3, "cost") == ["slowdown:free", "slowdown:keep_label", "slowdown:double_kill"]


def test_names_are_known_without_torch():
    code = (
        "import sys; from exitbench.attacks.presets import attack_texts; from exitbench.data.cards import dataset_names; "
        "assert len(attack_texts()) > 10 and dataset_names(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

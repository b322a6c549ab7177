"""A setting of the attacks is defined once: options, requests, baselines and reproduced commands all follow the definition."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from exitbench.analysis.regression.request import SETTINGS, merged
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.knobs import ASCENTS, Knob
from exitbench.attacks.presets import expand
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import KNOBS, AttackSettings, read_back, settings_for
from exitbench.cli.check import command as check
from exitbench.cli.main import cli
from exitbench.cli.plan import command as plan
from exitbench.cli.run import command as run
from exitbench.data.cards import dataset_card
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import FixedExit
from exitbench.models.spec import describe
from exitbench.runner.prepare import Request, _settings
from tests.bench.test_command import of, recorded

BALL = ThreatModel("Linf", 0.1)
CARD = dataset_card("digits")


def another(knob: Knob) -> object:
    """A value that is no default."""
    if knob.choices:
        return next(choice for choice in knob.choices if choice != knob.default)
    return (knob.default or 6) + 1 if knob.kind is int else 0.125


def given(name: str) -> dict[str, object]:
    """A setting with another value than its default, and the method that has it."""
    method = {} if name == "method" or KNOBS[name].of[0] not in ASCENTS else {"method": KNOBS[name].of[0]}
    return {**method, name: another(KNOBS[name])}


def test_every_field_but_the_threat_model_is_a_knob():
    assert list(KNOBS) == [field.name for field in fields(AttackSettings)][1:]


@pytest.mark.parametrize("name", KNOBS)
@pytest.mark.parametrize("command", [run, check, plan], ids=["run", "check", "plan"])
def test_it_is_an_option_with_its_default_and_its_help(command, name):
    (option,) = (each for each in command.params if each.name == name)
    knob = KNOBS[name]
    assert option.opts == [f"--{name.replace('_', '-')}"] and option.help == knob.help
    assert command.make_context(command.name, ["--model", "m"]).params[name] == knob.default
    told = CliRunner().invoke(cli, [command.name, "--help"]).output
    assert option.opts[0] in told


@pytest.mark.parametrize("name", KNOBS)
def test_a_baseline_remembers_it_and_a_request_has_it(name):
    assert name in SETTINGS
    context = run.make_context("run", ["--model", "m", f"--{name.replace('_', '-')}", str(another(KNOBS[name]))])
    values = {key: context.params[key] for key in ("model", "data", *KNOBS)}
    request = Request.of(merged(values | {"policy": None}, {}, None))
    assert request.knobs[name] == another(KNOBS[name])
    other = Request.of(merged(values | {"policy": None, name: None}, {}, None))
    assert other != request and len({request, other, Request.of(values | {"policy": None})}) == 2


@pytest.mark.parametrize("name", KNOBS)
def test_it_reaches_the_settings_and_is_read_back_from_the_attacks(name):
    asked = given(name)
    settings = settings_for(BALL, asked, CARD)
    assert getattr(settings, name) == KNOBS[name].value(asked[name]) != getattr(settings_for(BALL, {}, CARD), name)
    attacks, _ = expand(["average", "adaptive"], Deployment(3, FixedExit(3)), settings)
    assert asked.items() <= dict(read_back(map(describe, attacks.values()))).items()


@pytest.mark.parametrize("name", KNOBS)
def test_the_reproduced_command_tells_it(name, tmp_path):
    settings = _settings(Request("m", Path(), knobs=given(name)), "digits")
    (told,) = of(recorded(tmp_path, settings, ["average", "adaptive"]))
    value = another(KNOBS[name])
    assert f"--{name.replace('_', '-')} {value}" in told


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"step_size": -1.0}, "step size must be a finite number >= 0"),
        ({"gamma": float("nan")}, "gamma must be a finite number"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"method": "sgd"}, "method 'sgd' is not one of pgd, fgsm, apgd, wrm"),
        ({"loss": "hinge"}, "loss 'hinge' is not one of ce, margin, dlr, dlr-targeted"),
        ({"loss": "dlr-targeted"}, "for the method apgd, not pgd"),
        ({"method": "wrm", "restarts": 2}, "restarts are for pgd and untargeted apgd"),
    ],
)
def test_a_value_out_of_range_is_bad_input(asked, message):
    with pytest.raises(InvalidValue, match=message):
        settings_for(BALL, asked, CARD)


def test_another_name_is_a_mistake():
    with pytest.raises(TypeError, match="stepz"):
        settings_for(BALL, {"stepz": 3}, CARD)


def test_defaults_are_the_dataset_s_and_the_method_s():
    usual = settings_for(BALL, {}, CARD)
    assert (usual.steps, usual.step_size) == (CARD.steps, BALL.eps * CARD.step_ratio)
    assert settings_for(BALL, {"method": "apgd"}, CARD).steps == 100

"""The command that the page shows for a row is the one that makes it: parsed again, it asks for the same attacks."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import exitbench
from exitbench.api.names import separated
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.objectives import DLR, TargetedDLR
from exitbench.attacks.presets import expand
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.cli.engine import WHERE
from exitbench.cli.main import cli
from exitbench.cli.options import number
from exitbench.cli.run import command as run
from exitbench.models.policies import EntropyPolicy
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import describe
from exitbench.report.page.command import commands, number_text
from exitbench.report.page.reproduce import reproduction
from exitbench.runner.prepare import Request, _settings
from exitbench.runner.record import write_record
from exitbench.scoring.load import evaluations
from exitbench.store.run_record import CLEAN
from exitbench.store.store import Store
from tests.bench.evaluated import plan_of, prepared
from tests.bench.pages import evaluation
from tests.bench.records import changed

BALL = ThreatModel("Linf", 8 / 255)
SETTINGS = {
    "pgd": AttackSettings(BALL, steps=20, step_size=2 / 255),
    "pgd on 8-bit images": AttackSettings(ThreatModel("Linf", 8 / 255, 255), steps=20, step_size=2 / 255),
    "pgd as in the paper": AttackSettings(BALL, steps=20, step_size=2 / 255, keep="last", restarts=3),
    "pgd with dlr in L2": AttackSettings(ThreatModel("L2", 0.5), steps=7, step_size=0.1 + 0.2, loss=DLR()),
    "fgsm": AttackSettings(BALL, steps=20, step_size=2 / 255, method="fgsm"),
    "apgd": AttackSettings(BALL, steps=33, step_size=2 / 255, method="apgd", restarts=2),
    "apgd with targeted dlr": AttackSettings(BALL, steps=9, step_size=2 / 255, method="apgd", loss=TargetedDLR()),
    "wrm": AttackSettings(ThreatModel("Linf", 0.3), steps=15, step_size=0.01, method="wrm", gamma=1 / 3),
    "policy with a budget": AttackSettings(BALL, steps=20, step_size=2 / 255, budget=60),
}
NAMES = (
    ["all"],
    ["average"],
    ["max_average", "average_max", "max"],
    ["single:2", "adaptive"],
    ["worst"],
    ["slowdown:free", "autoattack:each"],
    ["torchattacks:PGD(steps=3,alpha=0.01)", "single"],
)


POLICY = "entropy:0.30000000000000004,1.0"


def recorded(tmp_path, settings, names, seed=0, policy=None, model="toy", weights=None):
    asked = {"model": model, "weights": weights, "policy": policy}
    ready = replace(prepared(EntropyPolicy((0.1 + 0.2, 1.0))), settings=settings, asked=asked)
    store = Store(tmp_path)
    return write_record(ready, plan_of(ready, store, names, seed), seed, store)


def of(*records):
    return commands(replace(evaluation(0), record=records[0], records=records))


def parsed(command):
    """What the command line makes of the command."""
    words = shlex.split(command)
    assert words[:2] == ["exitbench", "run"]
    return run.make_context("run", words[2:]).params


CASES = [(how, names) for how in SETTINGS for names in NAMES if (how, names) != ("wrm", ["worst"])]  # which there is not


@pytest.mark.parametrize(("how", "names"), CASES)
def test_parsed_again_it_asks_for_the_same(tmp_path, how, names):
    record = recorded(tmp_path, SETTINGS[how], names, seed=7, policy=POLICY)
    (command,) = of(record)
    asked = parsed(command)
    attacks, seed = asked.pop("attacks"), asked.pop("seed")
    for name in ("dry_run", "results", *WHERE):
        del asked[name]
    request = Request.of(asked)
    assert (request.model, request.dataset, request.training, request.n) == ("toy", "digits", "none", record.n)
    assert (request.norm, request.eps, seed) == (record.norm, record.eps, 7)
    policy = parse_policy(request.policy, 3)
    wanted, _ = expand(
        [n for text in attacks for n in separated(text)],
        Deployment(3, policy, tuple(record.mmacs)),
        _settings(request, "digits"),
    )
    stored = {each.name: each.spec for each in record.attacks if not each.component and each.name != CLEAN}
    assert {name: describe(attack) for name, attack in wanted.items()} == stored


def test_runs_that_differ_in_attacks_alone_are_one_command_and_others_several(tmp_path):
    settings = SETTINGS["pgd"]
    average, single = (recorded(tmp_path, settings, names) for names in (["average"], ["single"]))
    (command,) = of(average, single)
    assert parsed(command)["attacks"] == ("average,single",)
    seeded = recorded(tmp_path, settings, ["average"], seed=1)
    assert [parsed(each)["seed"] for each in of(average, seeded)] == [0, 1]
    assert of(recorded(tmp_path, settings, [])) == []


def test_thresholds_are_asked_for_as_they_were(tmp_path):
    settings, names = SETTINGS["pgd"], ["average"]
    own = recorded(tmp_path, settings, names)
    assert parsed(of(own)[0])["policy"] is None, "the weights' own"
    calibrated = recorded(tmp_path, settings, names, policy="entropy@mmacs=60")
    assert parsed(of(calibrated)[0])["policy"] == "entropy@mmacs=60"
    old = changed(own, requested=None)
    assert parsed(of(old)[0])["policy"] == own.policy == POLICY
    (again,) = of(old, own)
    assert parsed(again)["policy"] is None, "given again, it is told once"
    more = changed(recorded(tmp_path, settings, ["single"]), requested=None)
    assert [parsed(each)["attacks"] for each in of(more, own)] == [("single",), ("average",)], "nothing is left out"


def test_a_network_is_named_as_it_was(tmp_path):
    settings, names = SETTINGS["pgd"], ["average"]
    registered = parsed(of(recorded(tmp_path, settings, names))[0])
    assert (registered["model"], registered["training"], registered["weights"]) == ("toy", "none", None)
    filed = parsed(of(recorded(tmp_path, settings, names, weights="mine/toy.safetensors"))[0])
    assert (filed["model"], filed["training"], filed["weights"]) == ("toy", None, Path("mine/toy.safetensors"))
    own = parsed(of(recorded(tmp_path, settings, names, model="nets/tiny.py:make"))[0])
    assert (own["model"], own["training"], own["weights"]) == ("nets/tiny.py:make", None, None)
    old = changed(recorded(tmp_path, settings, names), requested=None)
    assert parsed(of(changed(old, source="file toy.safetensors"))[0])["weights"] == Path("toy.safetensors")


def loaded(record):
    """What the page says of a record: in which folder the command works, and the arguments that load the network."""
    told = reproduction(replace(evaluation(0), record=record, records=(record,)))
    return told.where, told.snippet.partition("load_network(")[2].partition(")\n")[0]


def test_the_folder_in_which_it_works_is_named_and_the_network_loaded(tmp_path):
    settings, names = SETTINGS["pgd"], ["average"]
    where, call = loaded(recorded(tmp_path, settings, names))
    assert "In any folder" in where and call == "'toy', dataset='digits', training='none'"
    where, call = loaded(recorded(tmp_path, settings, names, model="nets/tiny.py:make", weights="nets/tiny.pt"))
    assert "nets/tiny.py and nets/tiny.pt" in where
    assert call == "'nets/tiny.py:make', dataset='digits', weights='nets/tiny.pt'"
    own = recorded(tmp_path, settings, names)
    where, call = loaded(changed(own, source="in memory, mine.Net"))
    assert "`net` is the network" in where and call == ""
    assert loaded(changed(own, requested=None))[1] == "'toy', dataset='digits', training='none'"


def test_what_the_page_shows_loads_the_network():
    net = exitbench.load_network("rdi_smallcnn", dataset="digits", training="average")
    assert not net.training and net(torch.zeros(2, 1, 28, 28)).shape == (3, 2, 10)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(exitbench.UserError, match="no weights of rdi_smallcnn"):
        exitbench.load_network("rdi_smallcnn", training="nobody's")
    with pytest.raises(exitbench.UserError, match="did you mean"):
        exitbench.load_network("rdi_smalcnn")


def test_a_name_stays_one_word(tmp_path):
    asked = {"weights": "it's mine.safetensors", "model": "a b; rm -rf *"}
    told = parsed(of(recorded(tmp_path, SETTINGS["pgd"], ["average"], **asked))[0])
    assert told["model"] == asked["model"] and told["weights"] == Path(asked["weights"]) and told["training"] is None


@given(st.floats(0, 1e6, allow_nan=False) | st.integers(1, 255).map(lambda pixels: pixels / 255))
def test_numbers_are_read_back_to_the_last_digit(value):
    assert number(None, None, number_text(value)) == value


TINY = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 10))
        self.late = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        return [self.early(x), self.late(x)]

def make():
    return Tiny()
"""


@pytest.mark.parametrize(
    "given",
    [
        ["--model", "rdi_smallcnn"],
        ["--model", "nets/tiny.py:make", "--policy", "entropy@equal"],
        ["--model", "nets/tiny.py:make", "--weights", "nets/tiny.pt"],
    ],
)
def test_run_as_it_stands_it_makes_the_same_row_again(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "tiny.py").write_text(TINY, encoding="utf-8")
    names = {"early.2.weight": (10, 16), "early.2.bias": (10,), "late.1.weight": (10, 64), "late.1.bias": (10,)}
    torch.save({name: torch.randn(*shape) for name, shape in names.items()}, tmp_path / "nets" / "tiny.pt")

    def done(arguments, where):
        result = CliRunner().invoke(cli, [*arguments, "--results", str(tmp_path / where)])
        assert result.exit_code == 0, result.output
        return (tmp_path / where / "leaderboards" / "digits-Linf-0.23.csv").read_bytes()

    same = ["--dataset", "digits", "--attack", "average,single:1", "--n", "4", "--steps", "2", "--seed", "3"]
    first = done(["run", *given, *same], "first")
    (found,) = evaluations(Store(tmp_path / "first" / "store"))
    (told,) = commands(found)
    assert all(word in shlex.split(told) for word in given)
    assert done(shlex.split(told)[1:], "again") == first

"""A bug of ours is a traceback and exit code 1; bad input is a message and exit code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from exitbench.attacks.regions import ThreatModel
from exitbench.cli.main import cli
from exitbench.errors import UserError, as_user_errors
from exitbench.models.errors import InputError, InvalidValue, NameTaken, UnknownName
from exitbench.models.policies import FixedExit
from exitbench.models.policy_text import parse_policy
from exitbench.models.tensor_file import WeightsError

RUN = ("run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "average", "--n", "2", "--steps", "1", "--dry-run")

PLACES = {
    "the costs": "exitbench.runner.prepare.measure_costs",
    "the pixels": "exitbench.data.split.Split.batch",
    "the settings": "exitbench.runner.prepare._settings",
    "the exit rule": "exitbench.models.policies.EntropyPolicy.check",
    "the attacks": "exitbench.attacks.pgd.PGD",
    "the keys": "exitbench.runner.plan.cell_key",
}


def planted(*_args, **_kwargs):
    raise ValueError("planted")


@pytest.mark.parametrize("where", PLACES)
def test_a_bug_is_not_taken_for_bad_input(where, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(PLACES[where], planted)
    with pytest.raises(ValueError, match="planted") as raised:
        cli.main(RUN, standalone_mode=False)
    assert not isinstance(raised.value, InputError)


@pytest.mark.parametrize("command", [("cost", "rdi_smallcnn"), ("cost", "rdi_smallcnn", "--policy", "entropy@mmacs=1")])
def test_nor_where_costs_are_asked_for(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("exitbench.models.cost._count", planted)
    with pytest.raises(ValueError, match="planted"):
        cli.main([*command, "--dataset", "digits"], standalone_mode=False)


PLANTED = """
import sys
from exitbench.data.split import Split
from exitbench.cli.main import main

def planted(*arguments):
    raise ValueError("planted")

Split.batch = planted
sys.argv = ["exitbench", *sys.argv[1:]]
main()
"""


def test_it_ends_the_command_with_a_traceback_and_exit_code_1(tmp_path):
    ended = subprocess.run([sys.executable, "-c", PLANTED, *RUN], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and "ValueError: planted" in ended.stderr and "error: " not in ended.stderr


BAD = {
    "an eps below 0": lambda: ThreatModel("Linf", -1.0),
    "no such exit": lambda: FixedExit(4).check(3),
    "a policy of another form": lambda: parse_policy("entropy:a,b", 3),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_an_error_of_its_own_and_a_value_error(case):
    with pytest.raises(InvalidValue):
        BAD[case]()
    with pytest.raises(UserError), as_user_errors():
        BAD[case]()


@pytest.mark.parametrize("kind", [InvalidValue, NameTaken, WeightsError])
def test_errors_of_every_layer_are_a_user_s_in_the_end(kind):
    with pytest.raises(UserError, match="so it is"), as_user_errors():
        raise kind("so it is")
    with pytest.raises(UserError, match="unknown model 'x'"), as_user_errors():
        raise UnknownName("model", "x", ["y"])
    with pytest.raises(ZeroDivisionError), as_user_errors():
        raise ZeroDivisionError

"""A bug is a line that says where its traceback is kept, and exit code 70; bad input is a message and exit code 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exitbench.attacks.regions import ThreatModel
from exitbench.cli import bug
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


def ended(tmp_path, **environment):
    return subprocess.run(
        [sys.executable, "-c", PLANTED, *RUN],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **environment},
        check=False,
    )


def kept_in(done):
    (line,) = done.stderr.splitlines()[-1:]
    assert (
        line.startswith("error: a bug, in exitbench or in code that it was given: ValueError: planted (")
        and done.returncode == 70
    )
    path = Path(re.search(r"its traceback is in (.*?), EXITBENCH_DEBUG=1 prints it", line)[1])
    assert "Traceback" in path.read_text() and "ValueError: planted" in path.read_text() and "python" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    return path


def test_it_ends_the_command_with_a_line_and_keeps_the_traceback(tmp_path):
    done = ended(tmp_path, EXITBENCH_LOGS=str(tmp_path / "logs"))
    assert kept_in(done).parent == tmp_path / "logs" and "Traceback" not in done.stderr
    (tmp_path / "file").write_text("")
    done = ended(tmp_path, EXITBENCH_LOGS=str(tmp_path / "file" / "logs"), TMPDIR=str(tmp_path), EXITBENCH_DEBUG="1")
    assert kept_in(done).parent.parent == tmp_path and "Traceback" in done.stderr


def test_the_traceback_is_printed_where_no_place_takes_it(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXITBENCH_LOGS", str(tmp_path / "file" / "logs"))
    monkeypatch.setattr(bug.tempfile, "mkdtemp", lambda **_: str(tmp_path / "file" / "temporary"))
    *told, line = bug.lines_of_bug(ValueError("planted"))
    assert told[-1] == "ValueError: planted" and line.endswith("its traceback could not be kept")


def test_the_newest_tracebacks_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("EXITBENCH_LOGS", str(tmp_path))
    for day in range(10, 40):
        (tmp_path / f"bug-200001{day}T000000-1.txt").write_text("")
    (line,) = bug.lines_of_bug(ValueError("planted"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 20 and left[-1] in line


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

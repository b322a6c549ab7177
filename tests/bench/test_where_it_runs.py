"""Places unlike a workstation: no home folder, terminals that are not UTF-8, and no terminal at all."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import cast

import pytest
from rich.console import Console
from rich.progress import Progress

from exitbench.cli import progress_lines
from exitbench.cli.display import TimeLeft
from exitbench.cli.encoding import print_whatever_can_be_printed
from exitbench.cli.main import main
from exitbench.cli.progress_lines import AttackLines, ReminderLines, is_live, working
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.plan import PlannedCell
from tests.toys import ROOT

NET = """
import torch
from torch import nn

class Grün(nn.Module):
    def __init__(self):
        super().__init__()
        self.exit_1 = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.exit_2 = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        return [self.exit_1(x), self.exit_2(x)]

def grün():
    return Grün()

def sure():
    torch.manual_seed(0)
    net = Grün()
    net.exit_1[1].weight.data *= 1e6
    return net
"""
RUN = [
    "run",
    "--model",
    "net.py:grün",
    "--dataset",
    "digits",
    "--policy",
    "entropy:0.5",
    "--n",
    "4",
    "--steps",
    "1",
    "--restarts",
    "1",
]

NOBODY = """
import os, pwd, sys
def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
from exitbench.cli.main import main
sys.argv = ["exitbench", *sys.argv[1:]]
main()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_user_without_a_home_or_an_entry_in_the_passwd_file(here):
    gone = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "EXITBENCH_DATA", "EXITBENCH_WEIGHTS", "EXITBENCH_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in gone and not name.startswith("XDG_")}
    (here / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *RUN, "--attack", "single:1"],
        cwd=here,
        env={**kept, "TMPDIR": str(here / "tmp"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "worst case" in done.stdout
    assert not (here / "~").exists(), "a folder of that name is what expanduser leaves behind"


def _printed(monkeypatch, encoding, *arguments):
    """Return exit code and output, in bytes, of a command on a terminal of that encoding."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    with monkeypatch.context() as patched:
        for name, value in (("stdout", out), ("stderr", err), ("argv", ["exitbench", *arguments])):
            patched.setattr(sys, name, value)
        with pytest.raises(SystemExit) as left:
            main()
    for stream in (out, err):
        stream.flush()
    return left.value.code, *(cast(io.BytesIO, stream.buffer).getvalue() for stream in (out, err))


def test_terminals_that_are_not_utf_8(here, monkeypatch):
    for encoding in ("ascii", "cp1252", "utf-8"):
        sure = ["run", "--model", "net.py:sure", *RUN[3:], "--n", "32"]
        code, out, _ = _printed(monkeypatch, encoding, *sure, "--attack", "single:1")
        assert code == 0 and b"worst case" in out
        assert ("✕" if encoding == "utf-8" else "x").encode(encoding) + b" failure: zero gradients" in out
        (page,) = here.glob("results/*.html")
        assert "·" in page.read_text(encoding="utf-8")
        json.loads(next(here.glob("results/store/runs/*.json")).read_bytes().decode("utf-8"))
    for encoding, model, told in (("cp1252", "nixü", b"nix\xfc"), ("cp1252", "nix日", b"nix\\u65e5")):
        code, _, err = _printed(monkeypatch, encoding, "run", "--model", model)
        assert code == 2 and told in err


def test_signs_have_a_letter_in_ascii(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    print_whatever_can_be_printed()
    print("✕ ▲ · … ⚠️ ü 日 \udcff", file=out, flush=True)
    assert cast(io.BytesIO, out.buffer).getvalue() == b"x ! . ~ ! \\xfc \\u65e5 \\udcff\n"


@dataclass
class Cell:
    name: str
    text: str
    work: float


CELLS = [Cell("clean", "clean on 0-31", 1), Cell("single:1", "single:1 on 0-31", 9), Cell("single:1", "single:1 on 32-63", 10)]


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def paper():
    return Console(file=io.StringIO(), width=40)


def _lines(paper):
    return paper.file.getvalue().splitlines()


def _finish(attacks, cell, error=None):
    attacks.started(cast(PlannedCell, cell))
    attacks.finished(Outcome(cast(PlannedCell, cell), error))


def test_a_line_per_finished_attack_with_the_time_left(paper):
    clock = Clock()
    attacks = AttackLines(ReminderLines(paper, clock), cast(list[PlannedCell], CELLS))
    clock.now += 6
    _finish(attacks, CELLS[0])
    assert _lines(paper) == ["clean: done; 1 of 2 attacks, 5 %, 6.0 s so far, about 1.9 min left"]
    _finish(attacks, CELLS[1], error="it broke")
    assert len(_lines(paper)) == 1, "cells of it are left"
    clock.now += 6
    _finish(attacks, CELLS[2])
    assert _lines(paper)[1] == "single:1: 1 of 2 cells ended in errors; 2 of 2 attacks, 100 %, 12.0 s so far, about 0.0 s left"


@pytest.mark.parametrize(("work", "told"), [(9, False), (10, True)])
def test_no_time_left_is_told_before_a_hundredth_of_the_work_is_done(paper, work, told):
    clock = Clock()
    cells = [Cell("clean", "clean on 0-31", work), Cell("cascade", "cascade on 0-31", 1000 - work)]
    attacks = AttackLines(ReminderLines(paper, clock), cast(list[PlannedCell], cells))
    clock.now += 6
    _finish(attacks, cells[0])
    (line,) = _lines(paper)
    assert line.endswith("about 9.9 min left" if told else "time left not known yet")
    bar = Progress(console=paper, get_time=clock)
    task = bar.add_task("", total=1000)
    for seconds, done in ((0, 0), (6, work)):
        clock.now += seconds
        bar.advance(task, done)
    assert TimeLeft().render(bar.tasks[task]).plain == ("0:09:54" if told else "-:--:--")


def test_at_least_a_line_every_half_minute(paper):
    clock = Clock()
    lines = ReminderLines(paper, clock)
    attacks = AttackLines(lines, cast(list[PlannedCell], CELLS))
    for _ in range(200):
        clock.now += 1
        lines.remind(attacks.reminder)
    assert len(_lines(paper)) == 200 // 30
    assert _lines(paper)[0] == "starting ...; 0 of 2 attacks, 0 %, 30.0 s so far, time left not known yet"
    _finish(attacks, CELLS[0])
    attacks.started(cast(PlannedCell, CELLS[1]))
    clock.now += 29.9
    lines.remind(attacks.reminder)
    assert len(_lines(paper)) == 7, "the last line is half a minute old at most"
    clock.now += 0.1
    lines.remind(attacks.reminder)
    assert _lines(paper)[-1] == "single:1 on 0-31 ...; 1 of 2 attacks, 5 %, 3.8 min so far, about 1.2 h left"


def test_reminders_come_while_the_work_goes_on(paper, monkeypatch):
    monkeypatch.setattr(progress_lines, "EVERY", 0.0)
    lines, written = ReminderLines(paper), threading.Event()

    def text():
        written.set()
        return "at work"

    with lines.reminding(text, period=0.001):
        assert written.wait(60)
    assert "at work" in _lines(paper)
    with pytest.raises(ZeroDivisionError), lines.reminding(text):
        1 / 0  # noqa: B018


def test_what_takes_long_beside_attacks_is_told_too(paper):
    with working(paper, "trust checks") as status:
        status.update("others")
        assert status() == "others ...; 0.0 s so far"
    assert _lines(paper) == [], "it was quick"


def test_a_pipe_is_no_terminal_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert not is_live(Console(file=io.StringIO()))

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert is_live(Console(file=Terminal()))
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not is_live(Console(file=Terminal()))


def test_run_and_plan_without_attacks_take_all(here, monkeypatch):
    planned = [_printed(monkeypatch, "utf-8", "plan", *RUN[1:], *rest)[1] for rest in ([], ["--attack", "all"])]
    assert planned[0] == planned[1] and b"autoattack" in planned[0]
    code, _, err = _printed(monkeypatch, "utf-8", *RUN, "--dry-run")
    assert code == 0 and b"autoattack" in err
    assert _printed(monkeypatch, "utf-8", *RUN, "--attack", ",")[0] == 2


def test_a_run_in_a_pipe_tells_what_is_finished(here, monkeypatch):
    code, _, err = _printed(monkeypatch, "utf-8", *RUN, "--attack", "single")
    assert code == 0
    said = [line.split(":")[0] for line in err.decode().splitlines() if "attacks, " in line]
    assert said == ["none", "single", "single"]

"""Text from elsewhere is never printed raw: generated texts of hostile parts, through every way in which commands print."""

from __future__ import annotations

import html
import io
import logging
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import click
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import exitbench.cli
from exitbench.analysis.compare.pairs import compare
from exitbench.analysis.regression.judge import judge
from exitbench.api.display import ProgressBar
from exitbench.cli.console import _Terminal
from exitbench.cli.display import TerminalDisplay
from exitbench.cli.ending import ended_by
from exitbench.cli.say import say
from exitbench.errors import UserError
from exitbench.models.printable import LineFormatter, one_line, printable
from exitbench.report.compare.terminal import comparison_text
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.plain_text import cell, line
from exitbench.report.regression import terminal as gate
from exitbench.report.regression.junit import to_junit
from exitbench.report.regression.markdown import to_markdown
from exitbench.report.regression.text import GateReport
from tests.bench.evaluated import evaluate, only_evaluation
from tests.bench.gate.synthetic import made
from tests.bench.records import changed

PARTS = (
    *("\x1b[31m", "\x1b]8;;http://evil\x07", "\x1b[2J", "\x9b5n", "\x00", "\x07", "\b", "\x7f", "\x85"),
    *("\n", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029", "\t"),
    *("\u202e", "\u2066", "\u200f", "\u061c", "\u200b", "\u200d", "\ufeff", "\u2060", "\u00ad", "\u3164", "\ufe0f", "\U000e0041"),
    *("::error::", "::error file=a::", ":::warning::x", "##[error]", "###[group]", "##vso[task.setvariable]", "##teamcity[x]"),
    *("\ud800", "\udc80", "\uffff", "\U0010ffff", "[bold]", "[/]", "\\", "|", "x", " ", "verified: 4000 counterexamples"),
)
HOSTILE = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join)
ALLOWED = re.compile(r"[^\x00-\x1f\x7f-\x9f\u061c\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\u3164\ufe0f\ufeff\ud800-\udfff]*")
COMMAND = re.compile(r"^\s*::[a-z]|##\w*\[", re.IGNORECASE)


def harmless(text):
    """Check each line of what was printed."""
    for each in text.split("\n"):
        assert ALLOWED.fullmatch(each), repr(each)
        assert not COMMAND.search(each), repr(each)
    return text


def shown(*objects, width=80, terminal=False, **options):
    console = _Terminal(file=io.StringIO(), width=width, force_terminal=terminal, emoji=False)
    console.print(*objects, **options)
    return console.file.getvalue()


@given(HOSTILE | st.text())
def test_a_text_becomes_one_line_and_stays_one(text):
    found = one_line(text)
    assert "\n" not in harmless(found) and one_line(found) == found and printable(found) == found
    assert (
        text == found
        or not text.isprintable()
        or COMMAND.search(text)
        or re.search(
            "::|##|[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\u180b-\u180f\U000e0100-\U000e01ef]", text
        )
    )


NAMES = ("grün", "日本語", "slowdown:free", "single:1", "a b", "8/255", "e\u0301", "models/net.py:make", "\u3000")


@pytest.mark.parametrize("text", NAMES)
def test_ordinary_names_are_as_they_are(text):
    assert one_line(text) == text


def test_signs_of_ours_stay():
    assert printable("\u25b2 a\nb \u2715") == "\u25b2 a\nb \u2715"


@given(HOSTILE, st.integers(20, 90))
def test_a_console_shows_them_as_text(text, width):
    table = Table(box=None)
    table.add_column("name", overflow="fold")
    table.add_row(cell(text))
    harmless(shown(text, markup=False, width=width))
    for each in (line(text), table, Text(text)):
        harmless(shown(each, width=width))
    assert len(shown(line(text), soft_wrap=True).splitlines()) == 1, "no line of its own"
    console = _Terminal(file=io.StringIO(), force_terminal=True, width=width)
    with Progress(console=console) as bar:
        bar.add_task(one_line(text).replace("[", ""))
    assert not re.search("\x1b\\](?!8;id=)|\x9b|[\u202e\u200b]", console.file.getvalue())


@given(st.lists(HOSTILE, min_size=1, max_size=3))
def test_a_line_that_is_said_is_one(texts):
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        say(*texts)
    assert len(harmless(stream.getvalue()).split("\n")) == len(texts) + 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE)
def test_errors_logs_and_progress_are_lines(text):
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", err)
        assert ended_by(UserError(text)) == 2
        assert ended_by(click.BadParameter(text)) == 2
        ProgressBar._write(text)
    assert len(harmless(err.getvalue()).split("\n")) == 4
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter("%(name)s: %(message)s"))
    handler.handle(logging.LogRecord("exitbench", logging.WARNING, "", 0, "plugin left out: %s", (text,), None))
    assert len(harmless(out.getvalue()).split("\n")) == 2
    console = _Terminal(file=io.StringIO(), width=200)
    TerminalDisplay(console).check_failed(text)
    harmless(console.file.getvalue())


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    _, store = evaluate(tmp_path_factory.mktemp("printed") / "store", ("single:1",))
    return only_evaluation(store)


@settings(max_examples=25, deadline=None)
@given(text=HOSTILE)
def test_records_are_shown_as_text(evaluation, text):
    fields = dict.fromkeys(("model", "training", "dataset", "note", "source", "weights", "calibration"), text)
    forged = replace(evaluation, record=changed(evaluation.record, **fields))
    told = harmless(shown(summary(forged, ["single:1"]), width=400))
    assert one_line(text).strip()[:8] in told or "[" in text
    harmless(shown(summary(forged, ["single:1"]), width=60))
    harmless(shown(comparison_text(compare(forged, forged))))


@settings(max_examples=25, deadline=None)
@given(text=HOSTILE, by=HOSTILE)
def test_the_gate_s_files_hold_them_as_text(text, by):
    right = np.ones(40, bool)
    before = made(right, {by: np.arange(40) < 30}, model=text, training=text)
    now = made(right, {by: np.arange(40) < 20}, model=text, dataset=text)
    report = GateReport(judge(before, now, failures=[text], unfinished=[text]), before, now, f"{text}.json")
    harmless(shown(gate.summary(report)))
    harmless(html.unescape(to_markdown(report)).replace("\u274c", ""))
    root = ElementTree.fromstring(to_junit(report))  # noqa: S314 - our own output
    for element in root.iter():
        for value in (*element.attrib.values(), element.text or ""):
            harmless(value)
        assert all("\n" not in value for value in element.attrib.values())


def test_nothing_else_in_the_command_line_prints():
    folder = Path(exitbench.cli.__file__).parent
    raw = re.compile(r"click\.s?echo|(?<![.\w])print\(|sys\.std(out|err)\.write|\bConsole\(")
    found = {path.name for path in folder.glob("*.py") if raw.search(path.read_text("utf-8"))}
    assert found == {"say.py", "console.py"}

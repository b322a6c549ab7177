"""One judgement told three ways: in the terminal, as Markdown, as JUnit XML; hostile names are text in all of them."""

import html
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from exitbench.analysis.regression.judge import judge
from exitbench.models.printable import one_line
from exitbench.report.regression.junit import to_junit
from exitbench.report.regression.markdown import escaped, to_markdown
from exitbench.report.regression.terminal import summary
from exitbench.report.regression.text import GateReport
from tests.bench.gate.synthetic import made

HOSTILE = "<script>alert(1)</script>|[x](http://evil)`@me`\n# [red]\x00\x1b[31m\udc80"
N = 40


def told(now=20, name="toy", **how):
    """A baseline of 30 robust samples of 40, and ``now`` of them left."""
    ones = np.ones(N, bool)
    before = made(ones, {"average": np.arange(N) < 30}, model=name)
    after = made(ones, {"average": np.arange(N) < now}, model=name, seed=1, training=name)
    return GateReport(judge(before, after, **how), before, after, f"baselines/{name}.json")


def parsed(xml):
    return ElementTree.fromstring(xml)  # noqa: S314 - our own output


def terminal(one, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(summary(one))
    return console.export_text()


def test_the_terminal_shows_table_flips_verdict_and_reason_in_80_columns():
    text = terminal(told())
    assert re.search(r"average +75\.00 +50\.00 +-25\.00 +10 +0 +0\.0039 +\+0\.0 % +REGRESSION", text)
    assert "average: right to wrong: 20, 21, 22, 23, 24, 25, 26, 27, 28, 29" in text
    assert "FAIL" in text and "average: 25.00 points lost, p = 0.0039" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("now", "verdict"), [(20, "FAIL"), (29, "PASS"), (40, "PASS, improved")])
def test_the_verdict_is_the_same_everywhere(now, verdict):
    one = told(now)
    assert f"\n{verdict}\n" in terminal(one)
    assert to_markdown(one).splitlines()[0].endswith(f"{verdict}: toy (toy) on digits test, Linf 0.2, n = 40")
    failures = parsed(to_junit(one)).get("failures")
    assert (failures == "0") == (verdict != "FAIL")
    assert ("update the baseline" in to_markdown(one)) == (verdict == "PASS, improved")


def test_markdown_is_one_table_of_as_many_cells_in_every_line():
    lines = to_markdown(told(name=HOSTILE)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert {line.count("|") for line in rows} == {10}
    assert any(line.startswith("<details><summary>") for line in lines) and "</details>" in lines


def test_hostile_names_are_text_in_markdown():
    text = to_markdown(told(name=HOSTILE))
    assert "<script" not in text and "](http" not in text and "`" not in text and "@me" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#124;&#91;x&#93;(http://evil)" in text
    assert not [line for line in text.splitlines() if line.startswith("# ")]


@given(st.text())
def test_escaped_text_reads_back_as_it_was_but_for_white_space(text):
    assert html.unescape(escaped(text)) == one_line(" ".join(text.split())) or "\r" in text or "&" in text
    assert "\n" not in escaped(text) and not set(escaped(text)) & set("<>|`*[]\\@")


@given(st.text(st.characters(), max_size=30))
def test_junit_is_well_formed_whatever_the_name(name):
    root = parsed(to_junit(told(name=name)))
    assert root.tag == "testsuites" and len(root.findall("testsuite/testcase")) == int(root.get("tests"))


def test_junit_has_a_case_for_every_claim_and_the_flips_in_the_failed_ones():
    root = parsed(to_junit(told(name=HOSTILE, failures=["zero gradients: <all>"], unfinished=["adaptive: crashed"])))
    cases = {case.get("name"): case.find("failure") for case in root.iter("testcase")}
    assert list(cases) == [
        *("clean", "clean: mean mmacs", "average", "average: mean mmacs", "worst case"),
        *("trust checks", "finished"),
    ]
    failed = {name: failure for name, failure in cases.items() if failure is not None}
    assert list(failed) == ["average", "worst case", "trust checks", "finished"]
    assert failed["trust checks"].get("message") == "zero gradients: <all>"
    assert "right to wrong: 20, 21" in failed["average"].text
    assert root.get("failures") == "4"


def test_the_terminal_shows_hostile_names_without_obeying_them():
    text = terminal(told(name="[red]x[/] \\"), width=200)
    assert "[red]x[/] \\" in text

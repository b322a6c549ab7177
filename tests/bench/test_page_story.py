"""What docs/reading-the-board.md promises of the page, done as it says by somebody who has read nothing else."""

from __future__ import annotations

import re

import pytest

from exitbench.checks.flag import Flag
from exitbench.report.page.command import commands
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from tests.bench.browser import opened, rows
from tests.bench.pages import evaluation
from tests.toys import ROOT

FLAG = Flag("zero gradients", "failure", {}, "no input gradient on 31 of 32 samples", "at exit 2")
BOARD = (
    evaluation(1, "cheap"),
    evaluation(2, "middling"),
    evaluation(95, "dear"),
    evaluation(94, "dearer"),
    evaluation(6, "masked", flags=(FLAG,)),
    evaluation(7, "elsewhere", dataset="mnist"),
)


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What the page says to do, by what for."""
    text = (ROOT / "docs" / "reading-the-board.md").read_text(encoding="utf-8")
    return {goal: " ".join(how.split()) for goal, how in re.findall(r"^\* \*\*(.+?)\*\*: (.+?)(?=\n\*|\n\n)", text, re.M | re.S)}


def controls(how: str) -> list[str]:
    """Names of what there is to choose, fill in, or press."""
    return re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", how)


def test_from_the_documentation_alone(chromium, tmp_path, said):
    path = tmp_path / "index.html"
    path.write_text(to_html(boards(BOARD)), encoding="utf-8")
    page, stopping = opened(chromium, path, permissions=["clipboard-read", "clipboard-write"])

    (at_most,) = controls(said["The best model under 60 mmacs"])
    page.get_by_role("tab", name="cifar10").click()
    page.get_by_label(at_most).fill("60")
    affordable = [each for each in BOARD[:4] if each.mean_cost(each.clean) <= 60]
    best = max(affordable, key=lambda each: each.worst.mean())
    assert rows(page)[0] == best.record.model and len(affordable) < 4 and "dear" not in rows(page)

    (heading,) = controls(said["Why a row is flagged"])
    page.get_by_role("link", name="masked").click()
    page.get_by_role("heading", name=heading).wait_for()
    assert FLAG.message in page.locator("article:visible .flags").inner_text()
    page.go_back()
    page.locator("#board").wait_for()
    assert rows(page)[0] == best.record.model, "still filtered"

    reproduce, copy = controls(said["The command that reproduces it"])
    page.get_by_role("link", name=best.record.model).click()
    page.get_by_role("heading", name=reproduce).wait_for()
    page.get_by_role("button", name=copy, exact=True).click()
    page.get_by_role("button", name="Copied").wait_for()
    assert [page.evaluate("navigator.clipboard.readText()")] == commands(best)
    assert stopping.messages == [] and {url.partition("#")[0] for url in stopping.requests} == {f"file://{path}"}
    page.close()

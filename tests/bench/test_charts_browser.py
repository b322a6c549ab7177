"""Charts in a real browser: what a reader reads, points at, hears, chooses and saves."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from exitbench.report.charts.axes import COSTS, SHARES
from exitbench.report.page.board import key_of
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from tests.bench.browser import opened, rows
from tests.bench.pages import evaluation
from tests.bench.test_charts import certified

LONG = "a_network_with_quite_a_long_name"
WIDTHS = (1440, 1024, 820, 390)

BOXES = """plot => [...plot.querySelectorAll("svg text")]
  .filter(each => each.textContent.trim() && getComputedStyle(each).opacity > 0 && !each.closest(".signs"))
  .map(each => [each, each.getBoundingClientRect()])
  .map(([each, box]) => [each.textContent, box.x, box.y, box.right, box.bottom])"""
FITS = (
    "() => [...document.querySelectorAll('.plot')].every(each => each.querySelector('svg')?.clientWidth <= each.clientWidth + 1)"
)
NAMES = "all => all.map(each => [each.getAttribute('role'), each.getAttribute('aria-label')])"


@pytest.fixture(scope="module")
def board():
    found = [evaluation(i, f"{LONG}_{i}" if i % 3 else "") for i in range(12)]
    return [certified(found[0], range(12)), certified(found[1], ()), *found[2:]]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, board) -> Path:
    path = tmp_path_factory.mktemp("charts") / "index.html"
    path.write_text(to_html(boards(board)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(chromium, page_file):
    found, stopping = opened(chromium, page_file)
    yield found
    assert stopping.messages == []
    assert {url.partition("#")[0] for url in stopping.requests if not url.startswith(("data:", "blob:"))} == {
        f"file://{page_file}"
    }
    found.close()


@pytest.fixture(autouse=True)
def as_opened(page):
    yield
    page.reload()
    page.locator(".pt").first.wait_for()


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_covers_another_or_leaves_the_page(page, board, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function(FITS)
    for plot in page.locator(".plot").all():
        boxes = plot.evaluate(BOXES)
        names = [text for text, *_ in boxes if text.startswith((LONG[:8], "net_"))]
        assert len(names) == len(board), "every network is named"
        for text, left, _, right, _ in boxes:
            assert left >= -0.5 and right <= width + 0.5, text
        for (one, *a), (other, *b) in combinations(boxes, 2):
            apart = a[2] <= b[0] + 0.5 or b[2] <= a[0] + 0.5 or a[3] <= b[1] + 2 or b[3] <= a[1] + 2
            assert apart, (one, other)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_filter_leaves_no_mark_of_what_it_hides(page, board):
    page.set_viewport_size({"width": 1400, "height": 900})
    page.get_by_role("searchbox").fill("net_00")
    page.wait_for_function("() => document.querySelectorAll('.pt').length === 8")
    left = {key_of(each) for each in board if each.record.model.startswith("net_00")}
    assert len(left) == len(rows(page)) == 4
    assert set(page.locator(".pt").evaluate_all("all => all.map(each => each.dataset.key)")) == left
    assert page.locator(".plot text", has_text=LONG[:8]).count() == 0


def test_a_reader_chooses_the_axes(page, board):
    panel = page.locator(".panel").first
    before = page.locator(".pt").first.bounding_box()
    panel.get_by_label("y axis").select_option("slowdown")
    panel.locator("svg text", has_text=SHARES["slowdown"]).wait_for()
    page.get_by_label("x axis").select_option("slowed")
    panel.locator("svg text", has_text=COSTS["slowed"][:30]).wait_for()
    page.get_by_label("logarithmic").check()
    page.wait_for_function("x => Math.abs(document.querySelector('.pt').getBoundingClientRect().x - x) > 1", arg=before["x"])
    panel.get_by_label("y axis").select_option("certified")
    panel.locator("svg text", has_text=SHARES["certified"]).wait_for()
    page.wait_for_function("() => document.querySelectorAll('.panel')[0].querySelectorAll('.pt').length === 1")
    options = page.get_by_label("x axis").locator("option").evaluate_all("all => all.map(each => each.value)")
    assert options == ["mmacs", "slowed", "certified_mmacs"], "nothing is offered that no row has"


def test_marks_have_names_and_are_reached_with_keys(page, board):
    plot = page.locator(".plot").nth(1)
    names = plot.locator(".pt").evaluate_all(
        "all => all.map(each => [each.getAttribute('role'), each.getAttribute('aria-label')])"
    )
    (one,) = [each for each in board if each.record.model == "net_000"]
    assert {role for role, _ in names} == {"button"}
    (name,) = [name for _, name in names if name.startswith("net_000, ")]
    assert f"{100 * one.worst.mean():.1f} %" in name and "certified 6.0 %" in name
    assert plot.locator(".pt[tabindex='0']").count() == 1, "one stop for the tab key, arrows from there"
    plot.locator(".pt[tabindex='0']").focus()
    first = page.evaluate("document.activeElement.dataset.key")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    key = page.evaluate("document.activeElement.dataset.key")
    page.keyboard.press("Enter")
    assert page.locator("#board tr.picked").get_attribute("data-key") == key and first


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_saved_is_whole_and_for_paper(page, scheme):
    page.emulate_media(color_scheme=scheme)
    with page.expect_download() as download:
        page.get_by_role("button", name="SVG").first.click()
    svg = Path(download.value.path()).read_text(encoding="utf-8")
    assert svg.startswith("<svg") and "var(" not in svg and "#ffffff" in svg and SHARES["clean"] in svg
    assert re.fullmatch(r"cifar10-Linf-8_255-clean-mmacs\.svg", download.value.suggested_filename)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").nth(1).click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    assert download.value.suggested_filename == "cifar10-Linf-8_255-worst-mmacs.png"


def test_the_same_chart_is_there_without_scripts(chromium, page_file):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{page_file}")
    assert page.locator(".static svg text", has_text=SHARES["worst"]).first.is_visible()
    assert not page.locator(".chart-tools").first.is_visible()
    context.close()

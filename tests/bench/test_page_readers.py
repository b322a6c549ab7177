"""The page for everybody who reads it: on every screen, in light and dark, on paper, with keys alone; and networks compared."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exitbench.analysis.compare.pairs import compare
from exitbench.report.page.board import key_of
from exitbench.report.page.header import Header
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from exitbench.stats.paired import mcnemar, newcombe
from tests.bench.browser import opened, rows
from tests.bench.pages import evaluation, few
from tests.bench.records import changed

_ELSEWHERE = evaluation(9, "other_images")
BOARD = (*few(), replace(_ELSEWHERE, record=changed(_ELSEWHERE.record, data="f" * 64)))
KEY = {each.record.model: key_of(each) for each in BOARD}
WIDTHS = (1440, 1024, 820, 390)
LINKS = {"Documentation": "https://example.org/docs"}

OVERLAPS = """() => {
  const texts = [...document.querySelectorAll("h1, h2, .version, .lead, .links a, .links summary, [role=tab], .about-board, " +
    ".filters label, button, #board .dt-column-title, #board td.model a, .sub, #board tbody td:not(.model)")];
  const seen = texts.filter(each => each.textContent.trim() && each.checkVisibility({ visibilityProperty: true })).map(each => {
    const range = document.createRange();
    range.selectNodeContents(each);
    return [each, range.getBoundingClientRect()];
  });
  const found = [];
  seen.forEach(([a, p], i) => seen.slice(i + 1).forEach(([b, q]) => {
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const over = wide > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1;
    if (over && !a.contains(b) && !b.contains(a)) found.push(a.textContent.trim() + " | " + b.textContent.trim());
  }));
  return found;
}"""
CUT_OFF = """() => [...document.querySelectorAll("#columns label")].filter(label => {
  label.scrollIntoView({ block: "center", behavior: "instant" });
  const box = label.getBoundingClientRect();
  return !label.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2));
}).map(label => label.textContent)"""
RINGS = """() => [...document.querySelectorAll("a, button, select, input, summary, [tabindex='0']")].filter(each => {
  if (!each.checkVisibility({ visibilityProperty: true }) || each.disabled || each.closest("#tip, svg")) return false;
  each.focus({ focusVisible: true });
  return document.activeElement === each && getComputedStyle(each).outlineStyle === "none";
}).map(each => each.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(to_html(boards(BOARD), None, Header("2026-11-27", LINKS)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shared(chromium, page_file):
    """One page for the module; at the end nothing was complained of, and nothing was asked for."""
    page, stopping = opened(chromium, page_file)
    yield page
    assert stopping.messages == [] and {url.partition("#")[0] for url in stopping.requests} == {f"file://{page_file}"}
    page.close()


@pytest.fixture
def page(shared, page_file):
    """The page as it is opened, on a desk, in light."""
    shared.set_viewport_size({"width": 1440, "height": 900})
    shared.emulate_media(media="screen", color_scheme="light")
    at(shared)
    return shared


def at(page, state: str = "") -> None:
    """Go where a link goes; an empty one is the page as it is opened."""
    page.evaluate("state => { location.hash = 'max='; location.hash = state; }", state)
    page.wait_for_function("() => [...document.querySelectorAll('#board, article')].some(each => each.checkVisibility())")


def serious(page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found if each["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_on_every_screen_nothing_overlaps_and_the_headline_is_seen(page, width, scheme):
    page.emulate_media(media="screen", color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    shown = "n => [...document.querySelectorAll('#board thead th')].filter(each => each.offsetParent).length === n"
    page.wait_for_function(shown, arg={1440: 10, 1024: 7, 820: 7, 390: 4}[width])  # the page hears of it a little later
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    titles = page.locator("#board thead th:visible").all_inner_texts()
    first = [title for title in titles if title != "#"]
    assert [re.sub(r"\s+", " ", title) for title in first[:2]] == ["network", "worst case %"]
    assert page.locator("td.model .sub:visible").first.inner_text() == "one exit"
    last = page.locator("#board thead th:visible").last.bounding_box()
    assert last["x"] + last["width"] <= width, "nothing important is off the screen"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_serious(page, width, scheme):
    page.emulate_media(media="screen", color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    at(page, f"compare={KEY['alpha']},{KEY['beta_net']}")
    page.get_by_text("How to cite").click()
    page.locator("#glossary summary").click()
    assert serious(page) == []
    page.locator("#glossary summary").click()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_axe_finds_nothing_serious_in_the_details(page, width, scheme):
    page.emulate_media(media="screen", color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    at(page, f"model={KEY['masked']}")
    assert serious(page) == []


def test_every_column_can_be_chosen(page):
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 600})
        page.get_by_role("button", name="Columns").click()
        assert page.evaluate(CUT_OFF) == []
        page.keyboard.press("Escape")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("button", name="Columns").click()
    page.locator("#columns").get_by_label("name in commands").check()
    assert "alpha" in page.locator("#board td.id").all_inner_texts()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Columns"


def test_what_is_reached_with_keys_shows_where_it_is(page):
    at(page, f"compare={KEY['alpha']},{KEY['beta_net']}")
    assert page.evaluate(RINGS) == []
    at(page, f"model={KEY['alpha']}")
    assert page.evaluate(RINGS) == []


def test_tabs_are_turned_with_keys_and_kept_in_the_address(page):
    first, second = page.get_by_role("tab").all()
    assert (first.get_attribute("aria-selected"), second.get_attribute("aria-selected")) == ("true", "false")
    first.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent").startswith("mnist")
    assert sorted(rows(page)) == ["=1+1", "delta"] and "board=mnist-Linf-8_255" in page.url
    assert page.get_by_text("2 of 2 rows").is_visible() and page.get_by_text("2 networks on the first 200").is_visible()
    assert page.locator(".chart:visible").count() == 1
    page.keyboard.press("Home")
    assert "delta" not in rows(page) and "board=" not in page.url
    at(page, "dataset=mnist&sort=clean.desc")
    assert sorted(rows(page)) == ["=1+1", "delta"], "as links of earlier pages say it"
    at(page, f"m-{KEY['delta']}")
    page.locator("article:visible .back a").click()
    assert sorted(rows(page)) == ["=1+1", "delta"], "back on the board of the network that the link names"


def test_two_networks_are_compared_as_the_command_compares_them(page):
    alpha, beta = (next(each for each in BOARD if each.record.model == name) for name in ("alpha", "beta_net"))
    page.get_by_label("compare alpha, trained").check()
    assert page.get_by_text("pick another to compare").is_visible() and page.get_by_text("Pick another network").is_visible()
    assert page.get_by_label("compare other_images, trained").is_disabled(), "its images are others"
    page.get_by_label("compare beta_net, trained").check()
    found = compare(alpha, beta)
    worst = found.pairs[-1]
    line = page.locator("#comparison tbody tr").nth(1).locator("th, td").all_inner_texts()
    low, high = (f"{100 * abs(each):.1f}" for each in worst.interval)
    assert line[0] == "beta_net, trained"
    assert line[1] == f"{100 * worst.b / worst.n:.1f}" and line[2][1:] == f"{100 * abs(worst.difference):.1f}"
    assert re.findall(r"[\d.]+", line[3]) == [low, high] and line[5:7] == [str(worst.only_a), str(worst.only_b)]
    assert line[4] == (f"{worst.p:.4f}" if worst.p >= 1e-4 else "< 0.0001")
    assert line[7] == f"{100 * beta.clean.correct.mean():.1f}"
    broken = page.locator("#comparison details").first
    broken.locator("summary").click()
    listed = re.findall(r"\d+", broken.locator(".samples").inner_text().partition(": ")[2])
    right = [alpha.clean.correct & np.logical_and.reduce([each.survived for each in alpha.attacks])]
    right += [beta.clean.correct & np.logical_and.reduce([each.survived for each in beta.attacks])]
    assert [int(each) for each in listed] == np.flatnonzero(right[0] & ~right[1]).tolist()
    assert KEY["alpha"] in page.url and KEY["beta_net"] in page.url.partition("compare=")[2]
    page.get_by_role("button", name="Show comparison").click()
    assert page.evaluate("document.activeElement.textContent") == "Compare networks"
    page.get_by_role("button", name="Clear").click()
    assert not page.locator("#compare").is_visible() and "compare=" not in page.url


def test_the_pages_statistics_are_those_of_the_package(page):
    generator = np.random.default_rng(0)
    for n, shares in (
        (1, (0.5, 0.5)),
        (200, (0.9, 0.4)),
        (200, (0.5, 0.5)),
        (1000, (0.3, 0.31)),
        (50, (1.0, 1.0)),
        (50, (0.0, 1.0)),
    ):
        a, b = (generator.random(n) < share for share in shares)
        shown = page.evaluate("([a, b]) => comparison.pair(Uint8Array.from(a), Uint8Array.from(b))", [a.tolist(), b.tolist()])
        assert (shown["low"], shown["high"]) == pytest.approx(newcombe(a, b), abs=1e-12)
        lost, won = int((a & ~b).sum()), int((b & ~a).sum())
        assert (len(shown["gone"]), len(shown["won"])) == (lost, won) and shown["p"] == pytest.approx(
            mcnemar(lost, won), rel=1e-9
        )


def test_what_is_empty_says_what_to_do(page, chromium, tmp_path):
    page.get_by_role("searchbox").fill("nothing of the kind")
    assert page.get_by_text("Reset shows all of them").is_visible() and not page.locator(".chart:visible").count()
    page.get_by_role("button", name="Reset").click()
    path = tmp_path / "empty.html"
    path.write_text(to_html({}), encoding="utf-8")
    empty = chromium.new_page()
    empty.goto(f"file://{path}")
    assert empty.get_by_text("No network has been evaluated yet").is_visible() and empty.get_by_text("How to cite").is_visible()
    empty.close()
    bare = tmp_path / "bare.html"
    bare.write_text(to_html(boards([replace(evaluation(1, "bare"), attacks=())])), encoding="utf-8")
    bare_page, _ = opened(chromium, bare, f"#m-{key_of(evaluation(1, 'bare'))}")
    assert bare_page.get_by_text("No attack was run on this network").is_visible()
    bare_page.close()


def test_a_heading_says_what_its_column_means(page):
    page.locator("#board thead th[data-key=worst] [tabindex]").focus()
    assert "upper bound" in page.locator("#tip").inner_text()
    named = page.locator("#board thead th[data-key=worst]").get_attribute("aria-describedby")
    assert "upper bound" in page.locator(f"#{named}").text_content()
    page.get_by_role("link", name="To the table").press("Enter")
    assert page.evaluate("Boolean(document.activeElement.closest('#board'))")


def test_on_paper_there_are_results_and_no_controls(page):
    page.emulate_media(media="print", color_scheme="light")
    page.set_viewport_size({"width": 794, "height": 1123})
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    for control in (".filters", ".tabs", ".links", "input.pick", ".dt-buttons", ".chart-tools", ".panel-tools"):
        assert not page.locator(control).first.is_visible()
    assert page.locator("#board").is_visible() and page.get_by_text("results of 2026-11-27").is_visible()

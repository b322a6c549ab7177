"""The page in a real browser: what a reader does with it."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from exitbench.report.page.board import key_of
from exitbench.report.page.html import to_html
from exitbench.report.write import boards
from tests.bench.browser import opened, ready, rows
from tests.bench.pages import HOSTILE, evaluation, few

KEY = {each.record.model: key_of(each) for each in few()}
ON_CIFAR = sum(each.record.dataset == "cifar10" for each in few())


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(to_html(boards(few())), encoding="utf-8")
    return path


@pytest.fixture
def show(chromium, page_file):
    """Opens the page; at the end of the test nothing was complained of, asked for over a network, or run."""
    found = []

    def open_(hash_: str = "", path: Path = page_file, **options):
        page, stopping = opened(chromium, path, hash_, **options)
        found.append((page, stopping, path))
        return page

    yield open_
    for page, stopping, path in found:
        assert stopping.messages == [] and stopping.dialogs == []
        assert {url.partition("#")[0] for url in stopping.requests} == {f"file://{path}"}, "a request left the page"
        page.close()


def seen(page) -> list[list[str]]:
    """The table as seen: its headings, then its rows."""
    lines = page.locator("#board tr").all()
    text = "each => each.map(cell => (cell.querySelector('a') || cell).textContent)"
    return [[re.sub(r"\s+", " ", cell).strip() for cell in line.locator("th, td").evaluate_all(text)] for line in lines]


def downloaded(page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).first.click()
    return Path(download.value.path()).read_text(encoding="utf-8")


def test_a_heading_sorts_and_the_address_keeps_it(show):
    page = show()
    assert len(rows(page)) == ON_CIFAR
    page.locator("#board thead th[data-key=mmacs]").click()
    page.locator("#board thead th[aria-sort=ascending]").wait_for()
    costs = [float(text) for text in page.locator("#board td.mmacs").all_text_contents()]
    assert costs == sorted(costs) and "sort=mmacs.asc" in page.url
    page.locator("#board thead th[data-key=mmacs]").click()
    page.locator("#board thead th[aria-sort=descending]").wait_for()
    assert [float(text) for text in page.locator("#board td.mmacs").all_text_contents()] == costs[::-1]
    page.reload()
    ready(page)
    assert [float(text) for text in page.locator("#board td.mmacs").all_text_contents()] == costs[::-1]


def test_filters_and_search_narrow_table_and_charts_and_the_address_keeps_them(show):
    page = show()
    page.locator(".filters").get_by_label("kind", exact=True).select_option("early exits")
    page.locator(".filters").get_by_label("trust checks", exact=True).select_option("unflagged")
    assert sorted(rows(page)) == ["alpha", "beta_net"]
    assert page.locator(".chart:visible").count() == 1
    assert page.locator(".chart:visible .pt:visible").count() == 2 * 2, "two networks on two panels"
    costs = sorted(float(text) for text in page.locator("#board td.mmacs").all_text_contents())
    page.get_by_label("at most").fill(str(costs[0] + 0.01))
    assert len(rows(page)) == 1
    again = show(page.url[page.url.index("#") :])
    assert rows(again) == rows(page)
    again.get_by_role("button", name="Reset").click()
    again.locator("#board tbody tr").nth(ON_CIFAR - 1).wait_for()
    again.get_by_role("searchbox").fill("alpha")
    assert rows(again) == ["alpha"] and "q=alpha" in again.url
    again.get_by_role("searchbox").fill("nothing of the kind")
    assert again.get_by_text("No network passes the filters.").is_visible()


def test_columns_hide_and_both_exports_are_what_is_seen(show):
    page = show("#dataset=mnist&sort=clean.desc")
    page.get_by_role("button", name="Columns").click()
    page.locator("#columns").get_by_label("strongest attack").uncheck()
    page.keyboard.press("Escape")
    page.locator("#columns").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.textContent").startswith("Columns"), "the reader is not sent back to the top"
    table = seen(page)
    assert "strongest attack" not in table[0] and "trust checks" in table[0] and len(table) == 1 + 2
    exported = list(csv.reader(io.StringIO(downloaded(page, "CSV"))))
    assert exported[0] == table[0]
    assert [[cell.replace("'=1+1", "=1+1") for cell in row] for row in exported[1:]] == table[1:]
    assert any(cell.startswith("'=1+1") for row in exported for cell in row), (
        "a name that a spreadsheet would run is kept from it"
    )
    latex = downloaded(page, "LaTeX")
    body = re.findall(r"^  (.*) \\\\$", latex, re.MULTILINE)
    plain = [[re.sub(r"\\([%_&#$])", r"\1", cell).replace("--", " - ") for cell in line.split(" & ")] for line in body]
    assert plain == table
    assert "columns=" in page.url and "strongest" not in page.url.partition("columns=")[2]


def test_pointing_at_a_marker_shows_its_numbers_and_clicking_finds_its_row(show):
    page = show()
    mark = page.locator(".chart .panel >> nth=1").locator(f".pt[data-key={KEY['alpha']}]")
    mark.evaluate("mark => mark.scrollIntoView({ behavior: 'instant', block: 'center' })")
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    (alpha,) = [each for each in few() if each.record.model == "alpha"]
    tip = page.locator("#tip")
    tip.wait_for(state="visible")
    text = tip.inner_text()
    assert "alpha" in text and f"{100 * alpha.worst.mean():.1f} %" in text and f"{alpha.mean_cost(alpha.clean):.2f}" in text
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#board tr.picked td.model a").all_inner_texts() == ["alpha, trained"]
    assert page.evaluate("document.activeElement.textContent") == "alpha, trained"


def test_a_link_opens_the_details_and_going_back_restores_the_filters(show):
    page = show(f"#model={KEY['masked']}&dataset=cifar10")
    article = page.locator("article:visible")
    assert article.locator("h2").inner_text().startswith("masked")
    assert "no input gradient on 32 of 32 samples" in article.inner_text()
    assert not page.locator("#board").is_visible()
    article.get_by_role("link", name="Leaderboard").click()
    page.locator("#board").wait_for()
    assert "delta" not in rows(page) and "masked" in rows(page)
    page.get_by_role("link", name="beta_net").click()
    assert page.locator("article:visible h2").inner_text().startswith("beta_net")
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.go_back()
    page.locator("#board").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "beta_net, trained", "the reader is back where they were"
    wrong = show("#model=nobody")
    assert wrong.get_by_text("is not on this leaderboard").is_visible() and len(rows(wrong)) == ON_CIFAR


def test_the_details_say_what_the_evaluation_says(show):
    page = show(f"#m-{KEY['alpha']}")
    (alpha,) = [each for each in few() if each.record.model == "alpha"]
    article = page.locator("article:visible")
    text = article.inner_text()
    for heading in (
        "Can the number be believed?",
        "Which attack broke what",
        "Exits",
        "Slowdown",
        "Attack by attack",
        "Reproduce",
    ):
        assert article.get_by_role("heading", name=heading, exact=True).count() == 1
    assert "exitbench run --model alpha --dataset cifar10" in text
    counts = article.locator(".bars").evaluate_all("all => all.map(each => each.getAttribute('aria-label'))")
    for k, count in enumerate(alpha.exit_counts(alpha.clean)):
        assert f"clean {count}" in counts[k]
    heights = article.locator(".bars i.clean").evaluate_all("all => all.map(each => each.getBoundingClientRect().height)")
    assert max(heights) > 20
    exported = list(csv.reader(io.StringIO(downloaded(page, "CSV"))))
    assert [row[0] for row in exported[1:]] == [attack.name for attack in alpha.attacks]


def test_a_hostile_name_is_only_a_name(show):
    page = show()
    assert HOSTILE in rows(page)
    page.get_by_role("searchbox").fill("<script>")
    assert rows(page) == [HOSTILE]
    page.get_by_role("link", name=HOSTILE).click()
    assert HOSTILE in page.locator("article:visible h2").inner_text()
    assert "bad </script><img src=x onerror=alert(2)>" in page.locator("article:visible").inner_text()
    assert page.title().startswith(HOSTILE)
    page.locator("article:visible [data-tip]").first.hover()
    assert page.locator("img").count() == 0


def test_what_slipped_through_unescaped_could_do_nothing(chromium, page_file, tmp_path):
    path = tmp_path / "tampered.html"
    slipped = '<script>window.ran = 1</script><img src="http://127.0.0.1:9/x.png" onerror="window.ran = 2">'
    path.write_text(page_file.read_text(encoding="utf-8").replace("</header>", slipped + "</header>", 1), encoding="utf-8")
    page, stopping = opened(chromium, path)
    assert page.locator("img").count() == 1 and page.evaluate("window.ran") is None
    assert sum("Content Security Policy" in message for message in stopping.messages) >= 2
    page.close()


def test_rows_and_markers_are_reached_with_keys_alone(show):
    page = show()
    page.locator("#board thead th[data-key=mmacs] [tabindex]").press("Enter")
    page.locator("#board thead th[data-key=mmacs][aria-sort=ascending]").wait_for()
    links = page.locator("#board td.model a")
    links.first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == rows(page)[1] + ", trained"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.textContent") == rows(page)[-1] + ", trained"
    page.keyboard.press("Enter")
    assert (
        page.locator("article:visible h2").inner_text().startswith(rows_text := page.title().partition(", trained")[0])
        and rows_text
    )
    page.keyboard.press("Escape")
    page.locator("#board").wait_for()
    mark = page.locator(".chart:visible .pt[tabindex='0']").first
    page.evaluate("window.scrollTo({ top: 0, behavior: 'instant' })")
    mark.focus()
    page.wait_for_function("() => document.querySelector('.pt:focus').getBoundingClientRect().bottom < innerHeight")
    assert page.locator("#tip").is_visible(), "also after the page has scrolled to it"
    page.keyboard.press("ArrowRight")
    key = page.evaluate("document.activeElement.dataset.key")
    page.keyboard.press("Enter")
    assert page.locator("#board tr.picked").get_attribute("data-key") == key


@pytest.mark.parametrize("where", ["", f"#model={KEY['alpha']}"])
def test_a_phone_does_not_scroll_sideways(show, where):
    page = show(where, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if not where:
        assert seen(page)[0] == ["network", "worst case %", "clean %", "mean cost (mmacs)"]
        box = page.locator("#board").bounding_box()
        assert box["x"] + box["width"] <= 361, "the table itself fits"


def test_dark_and_print_are_readable(show):
    dark = show(color_scheme="dark")
    colours = "(() => { const of = getComputedStyle(document.body); return [of.color, of.backgroundColor] })()"
    bright = [sum(map(int, re.findall(r"\d+", each)[:3])) for each in dark.evaluate(colours)]
    assert bright[0] > 600 and bright[1] < 150
    assert dark.evaluate("getComputedStyle(document.querySelector('.pt')).stroke") not in ("rgb(0, 114, 178)", "none")
    printed = show(color_scheme="dark")
    printed.emulate_media(media="print", color_scheme="light")
    assert printed.evaluate(colours) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert not printed.locator(".filters").is_visible() and printed.locator("#board").is_visible()
    printed.set_viewport_size({"width": 794, "height": 1123})
    assert printed.evaluate("document.documentElement.scrollWidth") <= 794, "the board fits on A4"


def test_without_scripts_everything_is_there(chromium, page_file):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{page_file}")
    assert page.locator("#board tbody tr").count() == len(few())
    assert page.locator("details.entry").count() == len(few())
    page.locator("details.entry summary").first.click()
    assert page.get_by_role("heading", name="Reproduce").first.is_visible()
    context.close()


def test_a_long_board_comes_in_pages_and_is_searched_whole(chromium, tmp_path):
    path = tmp_path / "long.html"
    path.write_text(to_html(boards([evaluation(i) for i in range(60)])), encoding="utf-8")
    page, _ = opened(chromium, path)
    assert page.locator("#board tbody tr").count() == 50 and page.get_by_text("60 of 60 rows").is_visible()
    page.get_by_role("searchbox").fill("net_059")
    assert rows(page) == ["net_059"]
    page.close()

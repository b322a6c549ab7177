"""``exitbench report``: one page of several results folders, the same bytes every time."""

import pytest

from tests.bench.evaluated import evaluate, prepared


@pytest.fixture
def folders(tmp_path):
    """Two results folders, each with an evaluation of the toy under a name of its own."""
    for name in ("first", "second"):
        evaluate(tmp_path / name / "store", ["single:1"], prepared(n=20, name=name))
    return tmp_path / "first", tmp_path / "second"


def together(folders, page):
    return "report", "--results", folders[0], "--results", folders[1], "--output", page


def test_several_folders_make_one_page_and_are_left_alone(bench, folders, tmp_path):
    page = tmp_path / "page.html"
    before = sorted(path for folder in folders for path in folder.rglob("*"))
    head = ("--date", "2026-11-27", "--link", "Documentation=https://example.org/docs", "--link", "Submit=../submit.html")
    code, out, err = bench(*together(folders, page), *head)
    assert code == 0 and str(page) in out, err
    text = page.read_text(encoding="utf-8")
    assert "first, none" in text and "second, none" in text and "results of <time" in text
    assert '<a href="https://example.org/docs" rel="noopener">Documentation</a>' in text and 'href="../submit.html"' in text
    assert sorted(path for folder in folders for path in folder.rglob("*")) == before
    assert bench(*together(folders, page), *head)[0] == 0 and page.read_text(encoding="utf-8") == text


def test_the_date_is_never_a_clocks(bench, folders):
    assert bench("report", "--results", folders[0])[0] == 0
    assert "<time" not in (folders[0] / "index.html").read_text(encoding="utf-8")
    assert bench("report", "--results", folders[0], "--date", "2026-11-27")[0] == 0
    assert "2026-11-27" in (folders[0] / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--date", "yesterday"], "is not a date such as"),
        (["--link", "Docs"], "is not NAME=ADDRESS"),
        (["--link", "Docs=javascript:alert(1)"], "is not NAME=ADDRESS"),
        (["--link", "Docs=JavaScript:alert(1)"], "is not NAME=ADDRESS"),
        (["--link", "Docs=//example.org"], "is not NAME=ADDRESS"),
        (["--results", "nowhere", "--output", "page.html"], "there is no store in"),
    ],
)
def test_what_it_cannot_do_is_said(bench, folders, arguments, said):
    code, _, err = bench("report", "--results", folders[0], *arguments)
    assert code == 2 and said in err


def test_several_folders_need_a_file_and_no_evaluation_twice(bench, folders, tmp_path):
    code, _, err = bench("report", "--results", folders[0], "--results", folders[1])
    assert code == 2 and "name its file with --output" in err
    code, _, err = bench(*together((folders[0], folders[0]), tmp_path / "page.html"))
    assert code == 2 and "join them with" in err and not (tmp_path / "page.html").exists()

"""Figures for papers: one panel, as wide as a column, in words."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from PIL import Image

from exitbench.cli.figures import COSTS as COST_NAMES
from exitbench.cli.figures import SHARES as SHARE_NAMES
from exitbench.cli.figures import command
from exitbench.errors import UserError
from exitbench.report.charts.axes import COSTS, SHARES
from exitbench.report.charts.single import COLUMN, write_single_figures
from exitbench.report.write import boards
from tests.bench.evaluated import evaluate, prepared, toy_policy
from tests.bench.pages import few


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return write_single_figures(boards(few()), {}, folder, ("worst",), "slowed", log=True)


def test_each_board_has_a_pdf_and_an_svg(figures):
    assert [path.name for path in figures] == [
        f"{board}-worst-slowed.{kind}" for board in ("cifar10-Linf-8_255", "mnist-Linf-8_255") for kind in ("pdf", "svg")
    ]


def test_they_are_a_column_wide_in_points(figures):
    for path in figures:
        raw = path.read_bytes()
        pattern = rb"/MediaBox \[\s*0 0 ([\d.]+)" if path.suffix == ".pdf" else rb'<svg [^>]*width="([\d.]+)pt"'
        assert float(re.search(pattern, raw)[1]) == pytest.approx(COLUMN, abs=1), path.name


def test_letters_are_of_eight_points_and_titles_are_words(figures):
    svg = next(path for path in figures if path.suffix == ".svg").read_text(encoding="utf-8")
    sizes = {float(size) for size in re.findall(r'font-size="([\d.]+)px"', svg)}
    assert min(sizes) >= 7 and 8.0 in sizes and max(sizes) < 10
    assert SHARES["worst"] in svg and "costliest slowdown" in svg and "alpha, trained" in svg
    assert "cifar10-Linf" not in svg and "var(" not in svg


def test_what_no_board_has_is_said(tmp_path):
    with pytest.raises(UserError, match="no board has worst with ms"):
        write_single_figures(boards(few()), {}, tmp_path, ("worst",), "ms", log=False)


def test_the_command_writes_them(tmp_path):
    evaluate(tmp_path / "store", ["average"], prepared(toy_policy(), n=40))
    found = CliRunner().invoke(command, ["--results", str(tmp_path), "--output", str(tmp_path / "paper"), "--share", "clean"])
    assert found.exit_code == 0, found.output
    assert sorted(path.suffix for path in (tmp_path / "paper").iterdir()) == [".pdf", ".svg"]
    wrong = CliRunner().invoke(command, ["--results", str(tmp_path / "nothing"), "--output", str(tmp_path)])
    assert "there is no store" in str(wrong.exception)


def test_the_command_knows_the_axes():
    assert set(SHARE_NAMES) == set(SHARES) and set(COST_NAMES) == set(COSTS)


def test_a_figure_for_a_screen_is_700_pixels_wide_and_sharp(tmp_path):
    board = {"cifar10-Linf-8_255": [each for each in few() if each.record.dataset == "cifar10"]}
    (path,) = write_single_figures(board, {}, tmp_path, ("range",), "mmacs", log=False, screen=True)
    assert path.name == "cifar10-Linf-8_255-range-mmacs.png"
    with Image.open(path) as image:
        assert image.width == pytest.approx(2 * 700, abs=2)

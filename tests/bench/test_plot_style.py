"""Plots worth publishing: no text covers another, none leaves the figure, one look for all."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from exitbench.checks.flag import Flag
from exitbench.report.leaderboard.plot import NAMED, draw, points
from exitbench.report.style import COLOURS, MARKERS, RC, SHAPES, columns, network_style, to_bytes
from tests.bench.pages import evaluation
from tests.toys import ROOT


def texts(figure):
    """Every text drawn, with where, and the figure's own bounds."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = figure.findobj(Text)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = axis.get_view_interval()
        unseen = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        found = [each for each in found if each not in [tick.label1 for tick in unseen]]
    found = [each for each in found if each.get_visible() and each.get_text().strip()]
    return [(each.get_text(), each.get_window_extent(canvas.get_renderer())) for each in found], figure.bbox


LONG = "a_network_with_quite_a_long_name_{}"


@pytest.mark.parametrize(("n", "name"), [(1, ""), (3, ""), (12, ""), (12, LONG), (NAMED + 5, "")])
def test_no_text_covers_another_or_leaves_the_figure(n, name):
    flags = (Flag("zero gradients", "failure", {}, "none"),)
    board = [evaluation(i, name.format(i), flags=flags if i == 0 else ()) for i in range(n)]
    found, whole = texts(draw(board, "cifar10-Linf-8_255: CIFAR-10, 10 classes of 32x32 colour images"))
    for text, box in found:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, text
    for (one, a), (other, b) in itertools.combinations(found, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, (one, other)


def test_a_large_board_names_its_front_and_draws_all():
    board = [evaluation(i) for i in range(NAMED + 5)]
    figure = draw(board, "title")
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert 0 < len(named) < len(board) and named <= {point.label for point in points(board, "clean")}
    assert len(figure.axes[0].containers) == len(board)


def test_every_network_of_a_board_looks_different():
    assert len({network_style(i) for i in range(len(COLOURS) * len(MARKERS))}) == len(COLOURS) * len(MARKERS)
    assert set(SHAPES) == set(MARKERS), "the page draws the same markers"
    assert columns(["short", "x" * 100]) == 1 and columns(["short"]) == 2


def test_the_page_has_the_plots_colours():
    css = (ROOT / "bench" / "report" / "templates" / "page.css").read_text(encoding="utf-8").partition("@media")[0]
    for i, colour in enumerate(COLOURS):
        short = colour.lower().replace("#000000", "#000")
        assert f"--c{i}: {short};" in css


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    assert to_bytes(draw([evaluation(1)], "title"), "svg").startswith(b"<?xml")
    assert dict(matplotlib.rcParams) == before and before["axes.spines.top"] != RC["axes.spines.top"]

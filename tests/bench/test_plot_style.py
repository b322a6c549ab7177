"""One look for all plots, and a user's settings left alone."""

from __future__ import annotations

from matplotlib.figure import Figure

from exitbench.report.style import COLOURS, MARKERS, RC, SHAPES, columns, network_style, styled, to_bytes
from tests.toys import ROOT


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
    assert to_bytes(styled(Figure)(), "svg").startswith(b"<?xml")
    assert dict(matplotlib.rcParams) == before and before["axes.spines.top"] != RC["axes.spines.top"]

"""One look for all figures: as many markers as there are pairs of colour and shape, and the page's colours."""

from __future__ import annotations

from exitbench.report.charts.looks import marker
from exitbench.report.palette import COLOURS, MARKERS, SHAPES
from tests.toys import ROOT


def test_every_network_of_a_board_looks_different():
    assert len({marker(i) for i in range(len(COLOURS) * len(MARKERS))}) == len(COLOURS) * len(MARKERS)
    assert set(SHAPES) == set(MARKERS)


def test_the_page_has_the_figures_colours():
    css = (ROOT / "bench" / "report" / "templates" / "page.css").read_text(encoding="utf-8").partition("@media")[0]
    for i, colour in enumerate(COLOURS):
        short = colour.lower().replace("#000000", "#000")
        assert f"--c{i}: {short};" in css

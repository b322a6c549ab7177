"""Figures of a single panel: as wide as a column of a paper, or as the text of a web page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.whole_file import write_whole
from exitbench.report.charts.axes import COSTS, SHARES, present
from exitbench.report.charts.figures import title_of
from exitbench.report.charts.looks import looks_of
from exitbench.report.charts.render import pdf_of, png_of, svg_of
from exitbench.report.charts.rows import curve_rows, rows_of
from exitbench.report.charts.spec import Chart, Size, Spec, coloured, filled
from exitbench.report.page.curves import Curves
from exitbench.scoring.evaluation import Evaluation

COLUMN, FONT = 3.3 * 72, 8.0
"""Width of a paper's column, and size of letters, in points."""

_WIDTH = re.compile(r'^<svg [^>]*?\bwidth="([\d.]+)" height="([\d.]+)"')
_MARKER = "Marker: worst case, with its 95 % interval."
_ABOVE = "Line up: to clean accuracy."
_PROVEN = "Wide bar down: to what is certified."
_HOLLOW = "Hollow: one exit, or flagged."


@dataclass(frozen=True)
class Medium:
    """Where a figure is shown.

    Attributes:
        width: Of the whole figure, in points of a paper and pixels of a screen.
        size: What its panel begins with; the panel's width is then fitted.
        titled: Whether the board's name and what the marks mean stand above the panel.
    """

    width: float
    size: Size
    titled: bool


PAPER = Medium(COLUMN, Size(width=COLUMN - 30, height=0.5 * COLUMN, font=FONT, names="below"), titled=False)
SCREEN = Medium(700, Size(width=330, height=320, font=13, name_width=310), titled=True)


def fitted(chart: Chart, medium: Medium) -> Spec:
    """Return the specification of a figure that is as wide as its medium.

    How much room axis and names take is known when it is drawn, so the panel is fitted in steps.
    """
    size = medium.size
    for _ in range(3):
        spec = coloured(filled(chart, size))
        spec["padding"] = 1
        width, _ = _extent(svg_of(spec))
        if abs(width - medium.width) < 0.5:
            break
        size = replace(size, width=size.width + medium.width - width)
    return spec


def in_points(svg: str) -> str:
    """Return the same SVG with its size in points, as a paper takes it."""
    width, height = _extent(svg)
    sized = f'width="{width:g}pt" height="{height:g}pt"'
    return svg.replace(f'width="{width:g}" height="{height:g}"', sized, 1)


def write_single_figures(
    boards: Mapping[str, Sequence[Evaluation]],
    curves: Curves,
    folder: Path,
    shares: Sequence[str],
    cost: str,
    *,
    log: bool,
    screen: bool = False,
) -> list[Path]:
    """Write a figure ``<board>-<share>-<cost>`` for each board and share that has it, and return the files written.

    Args:
        boards: Evaluations of a store by board, in the order of rank.
        curves: Of sweeps; they are drawn where cost is the mean cost on clean images.
        folder: To write into.
        shares: What stands up, keys of ``SHARES``; a figure for each.
        cost: What stands across, a key of ``COSTS``.
        log: Whether the axis of cost is logarithmic.
        screen: Whether to write a PNG for a screen, in place of PDF and SVG for a paper.

    Raises:
        UserError: No board has these numbers.
        OSError: A file cannot be written.
    """
    looks = looks_of(each for found in boards.values() for each in found)
    files: dict[Path, bytes] = {}
    for name, found in boards.items():
        rows = rows_of(found, looks)
        points, floors = curve_rows(found, curves, looks)
        if cost not in present(COSTS, rows):
            continue
        for share in (each for each in shares if each in present(SHARES, rows)):
            chart = Chart(rows, points, floors, shares=(share,), cost=cost, log=log)
            for kind, content in (_on_screen(chart, found[0]) if screen else _on_paper(chart)).items():
                files[folder / f"{name}-{share}-{cost}.{kind}"] = content
    if not files:
        raise UserError(f"no board has {' or '.join(shares)} with {cost}; measure it first")
    for path, content in files.items():
        write_whole(path, content)
    return list(files)


def _on_paper(chart: Chart) -> dict[str, bytes]:
    spec = fitted(chart, PAPER)
    return {"pdf": pdf_of(spec), "svg": in_points(svg_of(spec)).encode()}


def _on_screen(chart: Chart, first: Evaluation) -> dict[str, bytes]:
    notes = [_HOLLOW]
    if chart.shares == ("range",):
        proven = any(row.get("certified") is not None for row in chart.rows)
        notes = [" ".join([_MARKER, _ABOVE, *([_PROVEN] if proven else []), _HOLLOW])]
    spec = fitted(replace(chart, title=title_of(first), notes=notes), SCREEN)
    return {"png": png_of(svg_of(spec), scale=2)}


def _extent(svg: str) -> tuple[float, float]:
    found = _WIDTH.match(re.sub(r'^<svg .*?(?=width=")', "<svg ", svg, count=1))
    if found is None:
        raise ValueError("an SVG without a size")
    return float(found[1]), float(found[2])

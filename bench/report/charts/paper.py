"""Figures for papers: a single panel as wide as a column of two, in letters of 8 points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.whole_file import write_whole
from exitbench.report.charts.axes import COSTS, SHARES, present
from exitbench.report.charts.looks import looks_of
from exitbench.report.charts.render import pdf_of, svg_of
from exitbench.report.charts.rows import curve_rows, rows_of
from exitbench.report.charts.spec import Chart, Size, Spec, coloured, filled
from exitbench.report.page.curves import Curves
from exitbench.scoring.evaluation import Evaluation

COLUMN, FONT = 3.3 * 72, 8.0
"""Width of a column, and size of letters, in points."""

_WIDTH = re.compile(r'^<svg [^>]*?\bwidth="([\d.]+)" height="([\d.]+)"')


def paper_spec(chart: Chart) -> Spec:
    """Return the specification of a figure that is ``COLUMN`` units wide, names of networks below the panel.

    How much room the axis takes is known when it is drawn, so the panel is fitted in steps.
    """
    size = Size(width=COLUMN - 30, height=0.5 * COLUMN, font=FONT, names="below")
    for _ in range(3):
        spec = coloured(filled(chart, size))
        spec["padding"] = 1
        width, _ = _extent(svg_of(spec))
        if abs(width - COLUMN) < 0.5:
            break
        size = replace(size, width=size.width + COLUMN - width)
    return spec


def in_points(svg: str) -> str:
    """Return the same SVG with its size in points, as a paper takes it."""
    width, height = _extent(svg)
    sized = f'width="{width:g}pt" height="{height:g}pt"'
    return svg.replace(f'width="{width:g}" height="{height:g}"', sized, 1)


def write_paper_figures(
    boards: Mapping[str, Sequence[Evaluation]], curves: Curves, folder: Path, shares: Sequence[str], cost: str, *, log: bool
) -> list[Path]:
    """Write ``<board>-<share>-<cost>.pdf`` and ``.svg`` for each board and share that has it, and return the files written.

    Args:
        boards: Evaluations of a store by board, in the order of rank.
        curves: Of sweeps; they are drawn where cost is the mean cost on clean images.
        folder: To write into.
        shares: What stands up, keys of ``SHARES``; a figure for each.
        cost: What stands across, a key of ``COSTS``.
        log: Whether the axis of cost is logarithmic.

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
            spec = paper_spec(Chart(rows, points, floors, shares=(share,), cost=cost, log=log))
            files[folder / f"{name}-{share}-{cost}.pdf"] = pdf_of(spec)
            files[folder / f"{name}-{share}-{cost}.svg"] = in_points(svg_of(spec)).encode()
    if not files:
        raise UserError(f"no board has {' or '.join(shares)} with {cost}; measure it first")
    for path, content in files.items():
        write_whole(path, content)
    return list(files)


def _extent(svg: str) -> tuple[float, float]:
    found = _WIDTH.match(re.sub(r'^<svg .*?(?=width=")', "<svg ", svg, count=1))
    if found is None:
        raise ValueError("an SVG without a size")
    return float(found[1]), float(found[2])

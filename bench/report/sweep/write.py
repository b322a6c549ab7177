"""Writes the reports of a sweep: a table and a plot for each leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exitbench.analysis.sweep.curve import Curve
from exitbench.models.whole_file import write_whole
from exitbench.report.charts.figures import sweep_figure
from exitbench.report.charts.looks import Looks, board_of
from exitbench.report.csv_file import to_csv
from exitbench.report.sweep.table import sweep_table


def write_sweep(curves: Sequence[Curve], results: Path, looks: Looks, only: str = "") -> list[Path]:
    """Write ``sweeps/<board>.csv``, ``.png`` and ``.svg`` into ``results``.

    Args:
        curves: Curves of any boards.
        results: The results folder.
        looks: Of all networks in its store, so that they look the same in every figure.
        only: Suffix of the file names for a sweep of a selection, so that the files of the whole store are not replaced.

    Returns:
        The files written.
    """
    boards: dict[str, list[Curve]] = {}
    for curve in curves:
        boards.setdefault(board_of(curve.pool.evaluations[0]), []).append(curve)
    files: dict[Path, bytes] = {}
    for name, found in sorted(boards.items()):
        figure = sweep_figure(found, looks)
        path = results / "sweeps" / f"{name}{only}"
        files[path.with_name(f"{path.name}.csv")] = to_csv(sweep_table(found)).encode()
        files[path.with_name(f"{path.name}.png")] = figure.to_bytes("png")
        files[path.with_name(f"{path.name}.svg")] = figure.to_bytes("svg")
    for path, content in files.items():
        write_whole(path, content)
    return list(files)

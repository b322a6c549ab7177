"""Writes the reports of a sweep: a table and a plot for each leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exitbench.analysis.sweep.curve import Curve
from exitbench.attacks.regions import ThreatModel
from exitbench.models.whole_file import write_whole
from exitbench.report.csv_file import to_csv
from exitbench.report.style import to_bytes
from exitbench.report.sweep.plot import draw
from exitbench.report.sweep.table import sweep_table
from exitbench.store.run_record import board_name


def write_sweep(curves: Sequence[Curve], results: Path, only: str = "") -> list[Path]:
    """Write ``sweeps/<board>.csv``, ``.png`` and ``.svg`` into ``results``.

    Args:
        curves: Curves of any boards.
        results: The results folder.
        only: Suffix of the file names for a sweep of a selection, so that the files of the whole store are not replaced.

    Returns:
        The files written.
    """
    boards: dict[str, list[Curve]] = {}
    for curve in curves:
        record = curve.pool.record
        boards.setdefault(board_name(curve.pool.evaluations[0].dataset, ThreatModel(record.norm, record.eps)), []).append(curve)
    files: dict[Path, bytes] = {}
    for name, found in sorted(boards.items()):
        figure = draw(found, f"{name}: {found[0].pool.evaluations[0].dataset_summary}")
        path = results / "sweeps" / f"{name}{only}"
        files[path.with_name(f"{path.name}.csv")] = to_csv(sweep_table(found)).encode()
        files[path.with_name(f"{path.name}.png")] = to_bytes(figure, "png")
        files[path.with_name(f"{path.name}.svg")] = to_bytes(figure, "svg")
    for path, content in files.items():
        write_whole(path, content)
    return list(files)

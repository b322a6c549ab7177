"""Writes the reports of RobustBench's leaderboard with a cost axis."""

from __future__ import annotations

from pathlib import Path

from exitbench.analysis.robustbench.join import DATASET, CostAxis
from exitbench.models.whole_file import write_whole
from exitbench.report.charts.looks import Looks
from exitbench.report.csv_file import to_csv
from exitbench.report.robustbench.plot import draw
from exitbench.report.robustbench.table import cost_axis_table


def write_cost_axis(axis: CostAxis, results: Path, looks: Looks | None = None) -> list[Path]:
    """Write ``robustbench/<dataset>-<norm>.csv``, ``.png`` and ``.svg`` into ``results``, and return the files written.

    Args:
        axis: What to write.
        results: Folder to write into.
        looks: Of the networks of its store.
    """
    path = results / "robustbench" / f"{DATASET}-{axis.norm}"
    figure = draw(axis, looks)
    files = {
        path.with_suffix(".csv"): to_csv(cost_axis_table(axis)).encode(),
        path.with_suffix(".png"): figure.to_bytes("png"),
        path.with_suffix(".svg"): figure.to_bytes("svg"),
    }
    for name, content in files.items():
        write_whole(name, content)
    return list(files)

"""Writes the reports of RobustBench's leaderboard with a cost axis."""

from __future__ import annotations

from pathlib import Path

from exitbench.analysis.robustbench.join import DATASET, CostAxis
from exitbench.models.whole_file import write_whole
from exitbench.report.csv_file import to_csv
from exitbench.report.robustbench.plot import draw
from exitbench.report.robustbench.table import cost_axis_table
from exitbench.report.style import to_bytes


def write_cost_axis(axis: CostAxis, results: Path) -> list[Path]:
    """Write ``robustbench/<dataset>-<norm>.csv``, ``.png`` and ``.svg`` into ``results``, and return the files written."""
    path = results / "robustbench" / f"{DATASET}-{axis.norm}"
    figure = draw(axis)
    files = {
        path.with_suffix(".csv"): to_csv(cost_axis_table(axis)).encode(),
        path.with_suffix(".png"): to_bytes(figure, "png"),
        path.with_suffix(".svg"): to_bytes(figure, "svg"),
    }
    for name, content in files.items():
        write_whole(name, content)
    return list(files)

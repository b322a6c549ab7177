"""Writes every report from the store: leaderboards, plots, page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attacks.regions import Ball
from bench.record import board_name
from bench.report.csv_file import to_csv
from bench.report.html import to_html
from bench.report.pareto import draw, to_bytes
from bench.report.table import leaderboard, rank
from bench.verdicts import Evaluation
from models.whole_file import write_whole


def boards(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Evaluations by leaderboard, best first, boards in the order of their names."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in sorted(evaluations, key=rank):
        record = evaluation.record
        name = board_name(record["dataset"], Ball(record["norm"], record["eps"]))
        found.setdefault(name, []).append(evaluation)
    return dict(sorted(found.items()))


def write_reports(evaluations: Sequence[Evaluation], results: Path) -> list[Path]:
    """Write ``leaderboards/<board>.csv``, ``plots/<board>.png`` and ``.svg``, and ``index.html`` into ``results``.

    Returns:
        The files written. Boards of which the store knows nothing are left alone.
    """
    by_board = boards(evaluations)
    files: dict[Path, bytes] = {}
    plots: dict[str, bytes] = {}
    for name, found in by_board.items():
        figure = draw(found, f"{name}: {found[0].record['dataset_summary']}")
        plots[name] = to_bytes(figure, "png")
        files[results / "leaderboards" / f"{name}.csv"] = to_csv(leaderboard(found)).encode()
        files[results / "plots" / f"{name}.png"] = plots[name]
        files[results / "plots" / f"{name}.svg"] = to_bytes(figure, "svg")
    files[results / "index.html"] = to_html(by_board, plots).encode()
    for path, content in files.items():
        write_whole(path, content)
    return list(files)

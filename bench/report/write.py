"""Writes every report from the store: leaderboards, plots, page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.whole_file import write_whole
from exitbench.report.charts.figures import board_figure
from exitbench.report.charts.looks import board_of, looks_of
from exitbench.report.csv_file import to_csv
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.lock import reports_locked
from exitbench.report.page.curves import Network, SweptCurve, read_curves
from exitbench.report.page.header import Header
from exitbench.report.page.html import to_html
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.load import evaluations
from exitbench.scoring.ranking import rank
from exitbench.store.run_record import evaluation_key
from exitbench.store.store import Store


def boards(scored: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Group evaluations by leaderboard, best first; boards are sorted by name."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in sorted(scored, key=rank):
        found.setdefault(board_of(evaluation), []).append(evaluation)
    return dict(sorted(found.items()))


def rewrite_reports(store: Store, results: Path, header: Header | None = None) -> tuple[list[Evaluation], list[Path]]:
    """Read the store and write every report into ``results``, as one step among processes (``exitbench.report.lock``).

    Args:
        store: That of ``results``.
        results: Folder of results.
        header: Date and links of the page.

    Returns:
        The evaluations, and the files written.

    Raises:
        OSError: If they cannot be written.
    """
    with reports_locked(results):
        found = evaluations(store)
        return found, write_reports(found, results, header)


def page_of(folders: Sequence[Path], header: Header) -> str:
    """Return one page of the boards of several results folders, from their stores and what ``bench sweep`` left beside them.

    Raises:
        UserError: If two folders hold the same evaluation.
    """
    found: dict[str, tuple[Path, Evaluation]] = {}
    curves: dict[Network, Sequence[SweptCurve]] = {}
    for folder in folders:
        for evaluation in evaluations(Store(folder / "store")):
            key = evaluation_key(evaluation.record)
            if key in found:
                name = f"{evaluation.record.model} ({evaluation.record.training})"
                raise UserError(f"{found[key][0]} and {folder} both hold {name}; join them with `exitbench merge`")
            found[key] = folder, evaluation
        curves = {**read_curves(folder / "sweeps"), **curves}
    return to_html(boards([evaluation for _, evaluation in found.values()]), curves, header)


def write_reports(scored: Sequence[Evaluation], results: Path, header: Header | None = None) -> list[Path]:
    """Write ``leaderboards/<board>.csv``, ``plots/<board>.png`` and ``.svg``, and ``index.html`` into ``results``.

    The page draws the curves of ``sweeps/`` as well, where ``bench sweep`` has written some.

    Returns:
        The files written. Boards of which the store knows nothing are left alone.
    """
    by_board, looks = boards(scored), looks_of(scored)
    files: dict[Path, bytes] = {}
    for name, found in by_board.items():
        figure = board_figure(found, looks)
        files[results / "leaderboards" / f"{name}.csv"] = to_csv(leaderboard(found)).encode()
        files[results / "plots" / f"{name}.png"] = figure.to_bytes("png")
        files[results / "plots" / f"{name}.svg"] = figure.to_bytes("svg")
    for path, content in files.items():
        write_whole(path, content)
    return [*files, write_page(scored, results, header)]


def write_page(scored: Sequence[Evaluation], results: Path, header: Header | None = None) -> Path:
    """Write ``index.html`` alone, from the evaluations and what ``bench sweep`` left in ``results``."""
    page = results / "index.html"
    write_whole(page, to_html(boards(scored), read_curves(results / "sweeps"), header).encode())
    return page

"""The HTML leaderboard, as one self-contained file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from exitbench.report.leaderboard.table import sparsity_text
from exitbench.report.page import assets
from exitbench.report.page.board import Row, columns, percent, rows
from exitbench.report.page.chart import BOTTOM, LEFT, RIGHT, TOP, chart, marker
from exitbench.report.page.curves import Curves, network_of
from exitbench.report.page.detail import detail
from exitbench.scoring.evaluation import Evaluation, accuracy
from exitbench.scoring.ranking import partial_status

FILTERS = (("dataset", "dataset"), ("threat", "threat model"), ("network", "network"))


def to_html(boards: Mapping[str, Sequence[Evaluation]], curves: Curves | None = None) -> str:
    """Return all boards as one HTML page.

    Args:
        boards: Evaluations by board name, in the order of their rank.
        curves: Curves of sweeps; they are drawn if their network is on a board.
    """
    curves = curves or {}
    found = rows(boards)
    evaluations = [evaluation for board in boards.values() for evaluation in board]
    scripts = [assets.START, *([*assets.library(), assets.own("page.js")] if found else [])]
    page = _environment().get_template("page.html.j2")
    return page.render(
        rows=found,
        columns=columns(found),
        filters=[(key, title, list(dict.fromkeys(row.cells[key].text for row in found))) for key, title in FILTERS],
        boards=[_board(name, board, found, curves) for name, board in boards.items()],
        details={row.key: _detail(evaluation, row, curves) for row, evaluation in zip(found, evaluations, strict=True)},
        css=Markup(assets.own("page.css")),  # noqa: S704 - files of this package and of the table library, nothing measured
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        content_policy=assets.content_policy(scripts),
        licences=assets.own("licences.txt"),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(assets.own), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["marker"] = marker
    environment.filters["breakable"] = _breakable
    environment.filters["words"] = _words
    environment.globals |= {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    return environment


def _breakable(text: str) -> Markup:
    """The text with places to break lines at."""
    return Markup("<wbr>").join(re.split(r"(?<=[_:])", text))


def _words(command: str) -> Markup:
    """The command with its words kept whole where lines break."""
    return Markup(" ").join(Markup('<span class="word">{}</span>').format(word) for word in command.split(" "))


def _board(name: str, evaluations: Sequence[Evaluation], found: Sequence[Row], curves: Curves) -> dict[str, Any]:
    first = next(row for row in found if row.board == name)
    return {
        "name": name,
        "title": f"{first.cells['dataset'].text}, {first.cells['threat'].text}",
        "summary": evaluations[0].dataset_summary,
        "chart": chart(evaluations, curves),
    }


def _detail(evaluation: Evaluation, row: Row, curves: Curves) -> dict[str, Any]:
    return {
        "record": evaluation.record,
        "verified": evaluation.verified,
        "view": detail(evaluation),
        "clean": accuracy(evaluation.clean.correct),
        "partial": partial_status(evaluation),
        "unfinished": evaluation.unfinished,
        "sparsity": evaluation.sparsity,
        "pruned": sparsity_text(evaluation),
        "sweep": chart([evaluation], curves, [row.style]) if network_of(evaluation.record) in curves else None,
    }

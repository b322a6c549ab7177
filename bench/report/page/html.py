"""The HTML leaderboard, as one self-contained file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from exitbench.report.charts.looks import Looks, looks_of, marker
from exitbench.report.charts.runtime import runtime
from exitbench.report.charts.spec import page_spec
from exitbench.report.leaderboard.flags import NOT_VERIFIED
from exitbench.report.leaderboard.table import sparsity_text
from exitbench.report.page import assets
from exitbench.report.page.board import Row, columns, percent, rows
from exitbench.report.page.chart import embedded
from exitbench.report.page.curves import Curves, network_of
from exitbench.report.page.detail import detail
from exitbench.report.page.header import Header
from exitbench.report.page.verdicts import verdicts_json
from exitbench.scoring.evaluation import Evaluation, accuracy
from exitbench.scoring.places import usual_n

FILTERS = (("network", "kind"),)

SCRIPTS = ("charts.js", "paired.js", "compare.js", "page.js")
"""The page's own scripts, in the order in which they are run."""

STYLES = ("page.css", "board.css")
"""The page's own styles; later ones add to earlier ones."""


def to_html(boards: Mapping[str, Sequence[Evaluation]], curves: Curves | None = None, header: Header | None = None) -> str:
    """Return all boards as one HTML page.

    Args:
        boards: Evaluations by board name, in the order of their rank.
        curves: Curves of sweeps; they are drawn if their network is on a board.
        header: Date and links.
    """
    curves = curves or {}
    found = rows(boards)
    evaluations = [evaluation for board in boards.values() for evaluation in board]
    looks = looks_of(evaluations)
    scripts = [assets.START, *([*assets.library(), runtime(), *map(assets.own, SCRIPTS)] if found else [])]
    page = _environment().get_template("page.html.j2")
    return page.render(
        header=header or Header(),
        verdicts=Markup(verdicts_json(evaluations)),  # noqa: S704 - numbers, keys and base64
        rows=found,
        columns=columns(found),
        filters=[(key, title, list(dict.fromkeys(row.cells[key].text for row in found))) for key, title in FILTERS],
        boards=[_board(name, board, found, curves, looks) for name, board in boards.items()],
        details={row.key: _detail(evaluation, row, curves, looks) for row, evaluation in zip(found, evaluations, strict=True)},
        css=Markup("".join(map(assets.own, STYLES))),  # noqa: S704 - files of this package and of the table library, nothing measured
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        chart_spec=Markup(page_spec()),  # noqa: S704 - JSON in which no tag can end the script
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
    return environment


def _breakable(text: str) -> Markup:
    """The text with places to break lines at."""
    return Markup("<wbr>").join(re.split(r"(?<=[_:])", text))


def _words(command: str) -> Markup:
    """The command with its words kept whole where lines break."""
    return Markup(" ").join(Markup('<span class="word">{}</span>').format(word) for word in command.split(" "))


def _board(name: str, evaluations: Sequence[Evaluation], found: Sequence[Row], curves: Curves, looks: Looks) -> dict[str, Any]:
    first = next(row for row in found if row.board == name)
    return {
        "name": name,
        "title": f"{_dataset(evaluations[0])}, {first.cells['threat'].text}",
        "summary": evaluations[0].dataset_summary,
        "size": len(evaluations),
        "samples": f"{_networks(len(evaluations))} on the first {usual_n(evaluations):,} test images.{_unverified(evaluations)}",
        "chart": embedded(evaluations, curves, looks, drawn=True),
    }


def _dataset(evaluation: Evaluation) -> str:
    """Return the dataset's name for readers, as ``CIFAR-10``: what its summary begins with, if that is the name written so."""
    written = evaluation.dataset_summary.partition(",")[0]
    return written if written.lower().replace("-", "") == evaluation.dataset.replace("_", "") else evaluation.dataset


def _partial(evaluation: Evaluation) -> str:
    """Return what is missing from the worst case, as a sentence; empty where nothing is."""
    unfinished = len(evaluation.unfinished)
    if unfinished:
        return f"{'One attack is' if unfinished == 1 else f'{unfinished} attacks are'} not finished."
    return "" if evaluation.complete else "Not every attack of the suite was run."


def _unverified(evaluations: Sequence[Evaluation]) -> str:
    """Return how many networks have no place because their figures came alone, as a sentence; empty where none has."""
    number = sum(not each.verified for each in evaluations)
    if not number:
        return ""
    whose = "Their figures" if number == len(evaluations) else f"The figures of {_networks(number)}"
    return f" {whose} came without images: they are {NOT_VERIFIED} and have no place."


def _networks(number: int) -> str:
    return "1 network" if number == 1 else f"{number} networks"


def _detail(evaluation: Evaluation, row: Row, curves: Curves, looks: Looks) -> dict[str, Any]:
    return {
        "record": evaluation.record,
        "verified": evaluation.verified,
        "view": detail(evaluation),
        "clean": accuracy(evaluation.clean.correct),
        "partial": _partial(evaluation),
        "unfinished": evaluation.unfinished,
        "sparsity": evaluation.sparsity,
        "sparse": sparsity_text(evaluation),
        "sweep": embedded([evaluation], curves, looks) if network_of(evaluation.record) in curves else None,
    }

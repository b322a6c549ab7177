"""The HTML leaderboard: one file that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.report.method import method_text
from bench.report.table import COLUMNS, partial_status, sparsity_text
from bench.report.trust_text import SIGNS, lines, verdict
from bench.verdicts import Evaluation, Result, accuracy


def to_html(boards: Mapping[str, Sequence[Evaluation]], plots: Mapping[str, bytes]) -> str:
    """All boards on one page.

    Args:
        boards: evaluations by board name, in the order of their rank.
        plots: each board's Pareto plot as PNG.
    """
    environment = Environment(
        loader=PackageLoader("bench.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    page = environment.get_template("leaderboard.html.j2")
    return page.render(boards=[_board(name, found, plots[name]) for name, found in boards.items()], columns=COLUMNS)


def _board(name: str, evaluations: Sequence[Evaluation], plot: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "summary": evaluations[0].record["dataset_summary"],
        "plot": base64.b64encode(plot).decode(),
        "rows": [_row(evaluation) for evaluation in evaluations],
    }


def _row(evaluation: Evaluation) -> dict[str, Any]:
    strongest = evaluation.strongest()
    return {
        "record": evaluation.record,
        "n_exits": len(evaluation.record["mmacs"]),
        "clean": accuracy(evaluation.clean.correct),
        "worst": accuracy(evaluation.worst) if evaluation.attacks or evaluation.unfinished else None,
        "partial": partial_status(evaluation),
        "verdict": verdict(evaluation),
        "sign": SIGNS[verdict(evaluation)],
        "flags": lines(evaluation),
        "any_exit": accuracy(evaluation.any_exit_robust),
        "n_attacks": len(evaluation.attacks),
        "computed_with": evaluation.computed_with(),
        "strongest": strongest.name if strongest else None,
        "strongest_accuracy": accuracy(evaluation.robust(strongest)) if strongest else None,
        "mmacs": evaluation.mean_cost(evaluation.clean),
        "sparsity": evaluation.sparsity,
        "pruned": sparsity_text(evaluation),
        "mmacs_dense": evaluation.mean_cost(evaluation.clean, "mmacs_dense"),
        "mmacs_attacked": evaluation.mean_cost(strongest) if strongest else None,
        "attacks": [_attack(evaluation, attack) for attack in (evaluation.clean, *evaluation.attacks)],
        "unfinished": evaluation.unfinished,
        "slowdowns": _slowdowns(evaluation),
    }


def _slowdowns(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The clean images and every slowdown attack; empty where there is none."""
    found = [attack for attack in evaluation.attacks if attack.is_slowdown]
    return [
        {
            "name": result.name,
            "seed": result.seed,
            "mmacs": evaluation.mean_cost(result),
            "slowed": evaluation.slowed(result),
            "accuracy": accuracy(evaluation.robust(result)),
        }
        for result in (evaluation.clean, *found)
        if found
    ]


def _attack(evaluation: Evaluation, attack: Result) -> dict[str, Any]:
    counts = evaluation.exit_counts(attack)
    return {
        "name": attack.name,
        "method": method_text(attack),
        "accuracy": accuracy(evaluation.robust(attack)),
        "first_to_break": evaluation.first_to_break(attack),
        "seed": attack.seed,
        "mmacs": evaluation.mean_cost(attack),
        "exits": [{"count": count, "share": count / evaluation.n} for count in counts],
        "exit_accuracy": attack.exit_accuracy,
        "passes": f"{attack.forwards:.1f} / {attack.backwards:.1f}",
        "seconds": f"{attack.seconds:.2g}",
        "outside": 1 - float(attack.within.mean()),
        "distance": f"{attack.distance:.3g}",
    }

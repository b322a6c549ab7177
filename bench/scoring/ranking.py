"""The ranking of the leaderboard, and the reasons why a worst case is not comparable."""

from __future__ import annotations

from typing import Any

from exitbench.scoring.evaluation import Evaluation

WORST = "worst"


def rank(evaluation: Evaluation) -> tuple[Any, ...]:
    """Return the sort key: complete and checked evaluations first, then partial or unchecked, then flagged, then unattacked ones.

    Within each group the highest worst case comes first.
    """
    record = evaluation.record
    return (
        not evaluation.attacks,
        bool(evaluation.failures),
        not (evaluation.complete and evaluation.checked),
        -evaluation.worst.mean(),
        record.model,
        record.training,
        record.policy,
        record.n,
    )


def worst_status(evaluation: Evaluation) -> str:
    """Return why a worst case is not comparable with others, or ``ok``."""
    found = [partial_status(evaluation)] if partial_status(evaluation) else []
    if evaluation.failures:
        found.append(f"flagged: {', '.join(flag.label for flag in evaluation.failures)}")
    elif not evaluation.checked and not found:
        found.append("trust not checked")
    return "; ".join(found) or "ok"


def partial_status(evaluation: Evaluation) -> str:
    """Return which attacks are missing from a worst case; empty if none are."""
    if evaluation.unfinished:
        return f"attacks unfinished: {len(evaluation.unfinished)}"
    return "" if evaluation.complete else "not the whole matrix"


def flags_text(evaluation: Evaluation) -> str:
    """Return the names of failures and warnings, separated by ``;``, or ``none``, or ``not checked``."""
    names = [flag.name for flag in evaluation.flags if flag.level != "info"]
    return ";".join(names if evaluation.checked else ["not checked", *names]) or "none"

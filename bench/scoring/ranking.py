"""The order of the leaderboard, and what keeps a worst case from standing in it."""

from __future__ import annotations

from typing import Any

from exitbench.scoring.evaluation import Evaluation

WORST = "worst"


def rank(evaluation: Evaluation) -> tuple[Any, ...]:
    """Sort key: no attack at all last, before it what trust checks found unbelievable, before it what is partial or unchecked.

    Within these the highest worst case comes first.
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
    """What keeps a worst case from standing beside others; ``ok`` for nothing."""
    found = [partial_status(evaluation)] if partial_status(evaluation) else []
    if evaluation.failures:
        found.append(f"flagged: {', '.join(flag.label for flag in evaluation.failures)}")
    elif not evaluation.checked and not found:
        found.append("trust not checked")
    return "; ".join(found) or "ok"


def partial_status(evaluation: Evaluation) -> str:
    """Which attacks are missing from a worst case; empty for none."""
    if evaluation.unfinished:
        return f"attacks unfinished: {len(evaluation.unfinished)}"
    return "" if evaluation.complete else "not the whole matrix"


def flags_text(evaluation: Evaluation) -> str:
    """Names of the failures and warnings, separated by ``;``; ``none`` where nothing was found, or ``not checked``."""
    names = [flag.name for flag in evaluation.flags if flag.level != "info"]
    return ";".join(names if evaluation.checked else ["not checked", *names]) or "none"

"""Publishes weights: the files of a training run, with the results of evaluating exactly these weights on the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from exitbench.errors import UserError
from exitbench.models.number_text import eps_text
from exitbench.models.weights import JOURNAL, WEIGHTS_CARD, WeightsCard
from exitbench.models.whole_file import write_whole
from exitbench.scoring.evaluation import Evaluation, Result

SUBSET = 32
"""Number of samples whose verdicts are recorded on the card, so that they can be checked again."""

COMPANIONS = (JOURNAL, ".run.png")


def publish(card: WeightsCard, weights: Path, evaluations: Sequence[Evaluation], folder: Path) -> Path:
    """Write the weights, their card with measured figures, and the journal of their training into ``folder``.

    Args:
        card: The card of the weights.
        weights: Their safetensors file, with journal and curve beside it.
        evaluations: The evaluations of a results store.
        folder: The folder of shipped weights.

    Returns:
        The path of the card.

    Raises:
        UserError: If there is no complete evaluation of these weights under their own policy, its trust checks fail or are
            missing, it is not verified, or an attack ran under several settings, of which the card has room for one.
    """
    evaluation = _evaluation(card, evaluations)
    shipped = replace(card, details={**card.details, "measured": measured(evaluation)})
    target = folder / f"{card.stem}.json"
    write_whole(target.with_suffix(".safetensors"), weights.read_bytes())
    write_whole(target, WEIGHTS_CARD.text(shipped))
    copy_companions(card, weights, folder)
    return target


def copy_companions(card: WeightsCard, weights: Path, folder: Path) -> None:
    """Copy journal and curve of a training, which lie beside its weights, into ``folder``."""
    for ending in COMPANIONS:
        kept = weights.with_name(card.stem + ending)
        if kept.is_file():
            write_whole(folder / kept.name, kept.read_bytes())


def _evaluation(card: WeightsCard, evaluations: Sequence[Evaluation]) -> Evaluation:
    own = [
        each
        for each in evaluations
        if each.record.weights == card.sha256 and card.policy in (None, each.record.policy) and each.attacks
    ]
    if not own:
        raise UserError(f"no evaluation of {card.stem} ({card.sha256[:12]}) under its own policy in the store; run one first")
    best = max(own, key=lambda each: (each.complete, each.n))
    if not best.complete:
        raise UserError(f"the evaluation of {card.stem} does not cover the whole matrix of attacks; run --attack all or worst")
    if not best.verified:
        raise UserError(
            f"the results of {card.stem} came without their counterexamples and are not verified here; `exitbench verify` them "
            "with --images FILE, or run the evaluation again"
        )
    if not best.checked or best.failures:
        reasons = ", ".join(flag.label for flag in best.failures) or "its trust checks are missing"
        raise UserError(f"the results of {card.stem} are flagged as failed, so its weights are not published: {reasons}")
    names = [attack.name for attack in best.attacks]
    if several := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"{card.stem} was attacked by {several[0]} under several settings; publish it from a results folder with one"
        )
    return best


def measured(evaluation: Evaluation) -> Mapping[str, Any]:
    """Return the card's figures: accuracies as in the leaderboard, and the verdicts of the first ``SUBSET`` samples."""
    record = evaluation.record
    results = (evaluation.clean, *evaluation.attacks)
    again = [each for each in evaluation.attacks if _is_plain_pgd(each)]
    steps = {key: again[0].spec[key] for key in ("steps", "step_size")} if again else {}
    verdicts = {each.name: _verdicts(each) for each in (evaluation.clean, *again)}
    return {
        "data": f"{record.dataset} test, first {evaluation.n}, {record.data[:12]}",
        "threat_model": f"{record.norm} {eps_text(record.eps)}",
        "policy": record.policy,
        "mmacs": round(evaluation.mean_cost(evaluation.clean), 3),
        "accuracy": {**{each.name: _share(evaluation, each) for each in results}, "worst": float(evaluation.worst.mean())},
        "subset": {"n": min(SUBSET, evaluation.n), **steps, **verdicts},
    }


def _share(evaluation: Evaluation, result: Result) -> float:
    return float(evaluation.robust(result).mean())


def _is_plain_pgd(result: Result) -> bool:
    """Return whether a result can be reproduced in seconds, whatever the batch."""
    spec = result.spec
    # Which iterate is kept is a setting of PGD alone.
    return result.name in ("average", "single:1") and (spec.get("restarts"), spec.get("keep")) == (1, "best")


def _verdicts(result: Result) -> str:
    return "".join("1" if right else "0" for right in result.correct[:SUBSET])

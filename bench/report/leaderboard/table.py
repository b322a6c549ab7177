"""The leaderboard as a tidy table: one row per model and attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from exitbench.models.weights import IMPORTED
from exitbench.report.leaderboard.certificate import certified_share
from exitbench.scoring.evaluation import Evaluation, Result, accuracy
from exitbench.scoring.ranking import WORST, flags_text, rank, worst_status
from exitbench.store.run_record import CLEAN, RunRecord

COLUMNS = {
    "model": "name of the network; of a published one, package and name; of your own, its file or module and the factory",
    "training": "name of the weights",
    "weights": "first 12 digits of the weight file's SHA-256; of your own network, of a digest over code or name, and tensors",
    "source": "where the weights come from: the command that made them, or what they were imported or read from",
    "policy": "the deployed exit rule",
    "calibration": "digest of the data and procedure that set the policy's thresholds; empty when given by hand",
    "dataset": "dataset; always its test split",
    "data": "first 12 digits of the SHA-256 over the n inputs and labels",
    "norm": "norm of the threat model",
    "eps": "its radius, for pixels in [0, 1]",
    "grid": "steps of the pixel values of images that count: 255 for images of 8 bits; the column is left out without a grid",
    "n": "number of samples: the first n of the split",
    "attack": f"attack name; '{CLEAN}' is the clean accuracy, '{WORST}' the per-sample worst case over all attacks",
    "method": "how the attack was run",
    "seed": "seed of the attack's noise",
    "accuracy": "share of samples that the deployed rule gets right, on the clean image and under the attack",
    "ci_low": "lower end of the accuracy's Wilson 95 % interval",
    "ci_high": "upper end of this interval",
    "accuracy_any_exit": "on the worst row: share of samples on which every exit stays right under all stored attacks",
    "certified": "on the worst row: share of samples that no attack can break (`bench certify`); 'nothing' where none is proven",
    "certified_mmacs": "on the worst row: the highest mean cost that any attack can cause, by `bench certify`",
    "mmacs": "mean cost under the attack: 10^6 multiply-accumulates of all that ran, every head on the way included",
    "mmacs_dense": "the same with multiply-accumulates of zero weights counted like any other; differs for sparse networks alone",
    "sparsity": "share of the weights of convolutions and linear layers that are zero; 0 where the network is not sparse",
    "mflops_paper": "the same in the paper's figure, which leaves out the heads passed; for comparison only",
    "latency_ms": "mean milliseconds of the exits taken, one image at a time, where measured by `bench latency`",
    "latency_on": "the processor that it was measured on, and the number of torch's threads",
    "slowdown_ratio": "mmacs over mmacs on clean images",
    "savings_erased": "share of what leaving early saves on clean images that is lost: 1 where all go to the last exit",
    "efficacy": "DeepSloth's: area under the share of samples that have left against the share of the whole network's cost",
    "exits_taken": "number of samples leaving at each exit, exit 1 first",
    "exit_accuracy": "accuracy of each exit on its own on the attack's images, exit 1 first",
    "distance": "mean distance of the attack's images from the clean ones, in the threat model's norm",
    "within": "share of these images in the threat model's ball; the others do not count in the worst case",
    "forwards": "mean forward passes per sample that the attack took",
    "backwards": "mean backward passes per sample that it took",
    "status": "ok, or why there is no number, or why the worst case is partial",
    "flags": "what the trust checks found, by name, failures first, separated by `;`; none, or not checked",
    "note": "a choice made for the user, such as the embedded dataset in place of the model's own",
}
"""Meaning of every column of the CSV."""

_PROVEN = ("certified", "certified_mmacs")
"""Columns that are left out where nothing was certified."""


def leaderboard(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Return the table: one row per evaluation and attack, highest worst case first, with the columns ``COLUMNS``.

    Those of certificates, and that of the grid, are left out where there are none.
    """
    rows: list[Mapping[str, Any]] = []
    for evaluation in sorted(evaluations, key=rank):
        rows += rows_of(evaluation)
    left_out = set() if any(evaluation.certificate for evaluation in evaluations) else set(_PROVEN)
    left_out |= set() if any(evaluation.record.grid for evaluation in evaluations) else {"grid"}
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in left_out])


def rows_of(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the rows of an evaluation: clean images, every attack, unfinished ones included, and the worst case if any."""
    same = {
        **_same(evaluation.record),
        "dataset": evaluation.dataset,
        "sparsity": evaluation.sparsity,
        "flags": flags_text(evaluation),
    }
    rows = [{**same, **_measured(evaluation, evaluation.clean)}]
    rows += [{**same, **_measured(evaluation, attack)} for attack in evaluation.attacks]
    rows += [{**same, "attack": each.name, "status": each.reason} for each in evaluation.unfinished]
    if evaluation.attacks or evaluation.unfinished:
        share, low, high = accuracy(evaluation.worst) if evaluation.attacked else (None, None, None)
        worst = {"attack": WORST, "method": f"worst of {len(evaluation.attacks)}", "status": worst_status(evaluation)}
        any_exit = float(evaluation.any_exit_robust.mean()) if evaluation.attacked else None
        figures = {"accuracy": share, "ci_low": low, "ci_high": high, "accuracy_any_exit": any_exit}
        rows.append({**same, **worst, **figures, **_proven(evaluation)})
    return rows


def _proven(evaluation: Evaluation) -> dict[str, Any]:
    certificate = evaluation.certificate
    if certificate is None:
        return {}
    return {"certified": certified_share(certificate), "certified_mmacs": certificate.cost()}


def training_text(record: RunRecord) -> str:
    """Return the training of the weights, and whether they were imported."""
    return f"{record.training}, imported" if record.source.startswith(IMPORTED) else str(record.training)


def sparsity_text(evaluation: Evaluation) -> str:
    """Return the meaning of the cost of a sparse network, in one line."""
    return (
        f"{evaluation.sparsity:.1%} of the weights are zero and count for nothing in mmacs; scattered zeros "
        "speed up no dense hardware, which needs mmacs_dense"
    )


def _same(record: RunRecord) -> dict[str, Any]:
    return {**record.columns(), "n": record.n, "source": record.source, "note": record.note}


def _measured(evaluation: Evaluation, result: Result) -> dict[str, Any]:
    share, low, high = accuracy(evaluation.robust(result))
    slowed = evaluation.slowed(result)
    return {
        "attack": result.name,
        "method": result.method,
        "seed": str(result.seed),
        "accuracy": share,
        "ci_low": low,
        "ci_high": high,
        "mmacs": evaluation.mean_cost(result),
        "mmacs_dense": evaluation.mean_cost(result, "mmacs_dense"),
        "mflops_paper": evaluation.mean_mflops_paper(result),
        "latency_ms": evaluation.mean_latency(result),
        "latency_on": evaluation.latency.where if evaluation.latency and evaluation.latency.stops else None,
        "slowdown_ratio": slowed.ratio,
        "savings_erased": slowed.savings_erased,
        "efficacy": slowed.efficacy,
        "exits_taken": " ".join(map(str, evaluation.exit_counts(result))),
        "exit_accuracy": " ".join(f"{value:.4f}" for value in result.exit_accuracy),
        "distance": result.distance,
        "within": float(result.within.mean()),
        "forwards": result.forwards,
        "backwards": result.backwards,
        "status": "ok",
    }

"""A sweep as a tidy table: one row per network and exit rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from exitbench.analysis.sweep.curve import Curve, Point
from exitbench.models.policy_text import policy_text
from exitbench.scoring.evaluation import Evaluation, accuracy
from exitbench.scoring.ranking import flags_text, partial_status, worst_status
from exitbench.store.csv_text import digest_text

NOT_ATTACKED = "not attacked itself"
"""Status of every rule but those that were evaluated as deployed ones."""

COLUMNS = {
    "model": "registered name of the network",
    "training": "name of its weights",
    "weights": "first 12 digits of their SHA-256",
    "dataset": "dataset of the evaluated samples; always its test split",
    "data": "first 12 digits of the SHA-256 over these samples and labels",
    "norm": "norm of the ball",
    "eps": "radius of the ball, for pixels in [0, 1]",
    "grid": "steps of the pixel values of images that count; the column is left out without a grid",
    "n": "number of samples evaluated",
    "rule": "the exit rule that is set to other costs, such as entropy; empty with one exit",
    "point": "first exit, target, last exit, or deployed: a rule that `bench run` evaluated",
    "target_mmacs": "mean cost that the thresholds were set for, on the calibration images",
    "policy": "the exit rule, as `--policy` takes it",
    "calibration": "digest of the images and procedure that set its thresholds; empty for none",
    "mmacs": "mean cost measured on the evaluated clean samples, as in the leaderboard",
    "mflops_paper": "the same in the paper's figure; for comparison only",
    "clean": "share of clean samples that the rule gets right",
    "clean_low": "lower end of its Wilson 95 % interval",
    "clean_high": "upper end of this interval",
    "worst": "share of samples that the rule gets right on the clean image and on every stored image of the ball",
    "worst_low": "lower end of the worst case's Wilson 95 % interval",
    "worst_high": "upper end of that interval",
    "ra_any": "share of samples on which every exit stays right on all stored images: no rule's worst case is lower",
    "exits_taken": "number of clean samples leaving at each exit, first to last",
    "status": f"ok; or '{NOT_ATTACKED}': the worst case is what attacks on other rules or exits find, or what is wrong",
    "flags": "what the trust checks found, as in the leaderboard; of a rule not attacked itself, over all rules evaluated",
}
"""Meaning of every column of the CSV."""


def sweep_table(curves: Iterable[Curve]) -> pd.DataFrame:
    """Return the table: one row per point, curve after curve, with the columns ``COLUMNS``; without a grid, that is left out."""
    rows = [_row(curve, point) for curve in curves for point in curve.points]
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "grid" or any(row.get("grid") for row in rows)])


def status(curve: Curve, point: Point) -> str:
    """Return why a point's worst case is not comparable with others, or ``ok``."""
    if point.evaluation is not None:
        return worst_status(point.evaluation)
    evaluations = curve.pool.evaluations
    found = [NOT_ATTACKED]
    if partial := [partial_status(evaluation) for evaluation in evaluations if partial_status(evaluation)]:
        found += partial[:1] if len(partial) == len(evaluations) else []
    if failures := dict.fromkeys(flag.label for evaluation in evaluations for flag in evaluation.failures):
        found.append(f"flagged: {', '.join(failures)}")
    elif not any(evaluation.checked for evaluation in evaluations):
        found.append("trust not checked")
    return "; ".join(found)


def _flags(curve: Curve, point: Point) -> str:
    evaluations = curve.pool.evaluations if point.evaluation is None else (point.evaluation,)
    return _union(evaluations)


def _union(evaluations: Sequence[Evaluation]) -> str:
    names = dict.fromkeys(name for evaluation in evaluations for name in flags_text(evaluation).split(";"))
    return ";".join(name for name in names if name != "none") or "none"


def _row(curve: Curve, point: Point) -> dict[str, Any]:
    record, judged = curve.pool.record, point.judged
    counts = [int((judged.exits == k).sum()) for k in range(len(curve.pool.mmacs))]
    set_by = getattr(point.policy, "calibration", None)
    row = {
        **record.columns(),
        "n": record.n,
        "rule": curve.rule,
        "point": point.where,
        "target_mmacs": point.target,
        "policy": policy_text(point.policy),
        "calibration": digest_text(set_by, len(set_by or "")) or None,
        "mmacs": point.mmacs,
        "mflops_paper": point.mflops_paper,
        "exits_taken": " ".join(map(str, counts)),
        "status": status(curve, point),
        "flags": _flags(curve, point),
    }
    row["clean"], row["clean_low"], row["clean_high"] = accuracy(judged.correct)
    if judged.worst is not None:
        row["worst"], row["worst_low"], row["worst_high"] = accuracy(judged.worst)
        row["ra_any"] = float(curve.any_exit_robust.mean())
    return row

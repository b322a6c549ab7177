"""RobustBench's leaderboard with a cost axis as a table: published and measured figures in columns of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from exitbench.analysis.robustbench.join import CostAxis, Costed
from exitbench.analysis.robustbench.published import OPTIONAL
from exitbench.models.number_text import eps_text
from exitbench.scoring.evaluation import Evaluation, accuracy
from exitbench.scoring.ranking import flags_text, worst_status

AUTOATTACK = "autoattack"

COLUMNS = {
    "network": "RobustBench's name of a published network; of a measured one, the leaderboard's",
    "kind": "published: accuracies are RobustBench's; measured: they are ours",
    "mmacs": "10^6 multiply-accumulates of one image; of a measured network with exits, the mean on clean images",
    "published_clean": "clean accuracy as published",
    "published_autoattack": "accuracy under AutoAttack as published",
    "published_external": "the lowest robust accuracy that others found, as published, where it is lower",
    "published_reported": "robust accuracy that the authors report, as published",
    "published_front": "whether no other published network is both cheaper and more robust; unreliable ones left out",
    "unreliable": "whether RobustBench says that the published robust accuracy is likely too high",
    "measured_clean": "clean accuracy of the deployed rule, measured here",
    "measured_clean_low": "lower end of its Wilson 95 % interval",
    "measured_clean_high": "upper end of it",
    "measured_autoattack": "accuracy of the deployed rule under AutoAttack alone (`--attack autoattack`), measured here",
    "measured_worst": "worst case over all attacks, per sample, measured here",
    "measured_worst_low": "lower end of its Wilson 95 % interval",
    "measured_worst_high": "upper end of it",
    "n": "samples that the measured accuracies are over",
    "exits": "number of exits of a measured network",
    "training": "name of a measured network's weights",
    "policy": "its deployed exit rule",
    "eps": "radius of the threat model",
    "architecture": "as published",
    "additional_data": "whether other data than CIFAR-10 was trained on, as published",
    "number_forward_passes": "as published; mmacs are of one call of the network, whatever it runs inside",
    "venue": "as published",
    "link": "as published",
    "status": "ok; why a published network has no mmacs; what a measured worst case lacks",
    "flags": "what the trust checks found on a measured network",
}
"""Every column of the CSV and what it means."""


def cost_axis_table(axis: CostAxis) -> pd.DataFrame:
    """One row per network: published ones, cheapest first, then measured ones; accuracies as shares."""
    rows = [_published(costed) for costed in axis.published] + [_measured(evaluation) for evaluation in axis.measured]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _published(costed: Costed) -> Mapping[str, Any]:
    entry = costed.entry
    texts = {name: entry.texts.get(name, "") for name in OPTIONAL if name not in ("external", "reported", "unreliable")}
    return {
        **texts,
        "network": entry.model_id,
        "kind": "published",
        "mmacs": costed.mmacs,
        "published_clean": entry.clean,
        "published_autoattack": entry.autoattack,
        "published_external": entry.external,
        "published_reported": entry.reported,
        "published_front": "yes" if costed.on_front else "no",
        "unreliable": "yes" if entry.unreliable else "no",
        "status": costed.status,
    }


def _measured(evaluation: Evaluation) -> Mapping[str, Any]:
    record = evaluation.record
    clean, clean_low, clean_high = accuracy(evaluation.clean.correct)
    worst, worst_low, worst_high = accuracy(evaluation.worst)
    return {
        "network": record.model,
        "kind": "measured",
        "mmacs": evaluation.mean_cost(evaluation.clean),
        "measured_clean": clean,
        "measured_clean_low": clean_low,
        "measured_clean_high": clean_high,
        "measured_autoattack": autoattack_accuracy(evaluation),
        "measured_worst": worst,
        "measured_worst_low": worst_low,
        "measured_worst_high": worst_high,
        "n": str(record.n),
        "exits": str(record.n_exits),
        "training": record.training,
        "policy": record.policy,
        "eps": eps_text(record.eps),
        "status": worst_status(evaluation),
        "flags": flags_text(evaluation),
    }


def autoattack_accuracy(evaluation: Evaluation) -> float | None:
    """Share that the deployed rule gets right under AutoAttack on it; None where that was not run to its end."""
    found = [attack for attack in evaluation.attacks if attack.name == AUTOATTACK]
    return min((accuracy(evaluation.robust(attack))[0] for attack in found), default=None)

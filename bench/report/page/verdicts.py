"""The verdict on every sample, packed into the page, so that readers can compare rows sample by sample."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exitbench.analysis.compare.pairs import AttackVariant, by_variant
from exitbench.report.page.board import key_of
from exitbench.scoring.evaluation import Bools, Evaluation


def verdicts_json(evaluations: Sequence[Evaluation]) -> str:
    """Return the verdicts on every sample of every evaluation, as JSON that can stand in a ``<script>``.

    For each row: which samples it has, a number that rows of the same samples and threat model share; how many; whether it is
    right on each clean image; and for each attack, by a number that rows attacked in the same way share, whether it survives.
    Verdicts are bits, eight to a byte, first sample first, in base64.
    """
    groups: dict[object, int] = {}
    variants: dict[AttackVariant, int] = {}
    found = {key_of(evaluation): _verdicts(evaluation, groups, variants) for evaluation in evaluations}
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003C")


def packed(verdicts: Bools) -> str:
    """Return verdicts ``(n,)`` as bits in base64."""
    return base64.b64encode(np.packbits(verdicts).tobytes()).decode()


def _verdicts(evaluation: Evaluation, groups: dict[object, int], variants: dict[AttackVariant, int]) -> Mapping[str, Any]:
    record = evaluation.record
    group = (record.samples, record.threat)
    attacks = {
        variants.setdefault(variant, len(variants)): packed(attack.survived) for variant, attack in by_variant(evaluation).items()
    }
    return {
        "group": groups.setdefault(group, len(groups)),
        "n": evaluation.n,
        "clean": packed(evaluation.clean.correct),
        "attacks": attacks,
    }

"""Derives the flags of an evaluation from its stored probes and cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exitbench.checks import controls, gradients, hidden, outputs, path, radii, search_model
from exitbench.checks.flag import LEVELS, Flag
from exitbench.data.cards import dataset_card
from exitbench.data.in_memory import USUAL_EPS
from exitbench.models.errors import UnknownName
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import canonical_json
from exitbench.scoring import black_box as stored
from exitbench.scoring.evaluation import Evaluation
from exitbench.store.run_record import RunRecord
from exitbench.store.trust_result import Controls, TrustResult

OF_THE_ATTACK = frozenset(
    {
        "accuracy by radius",
        "accuracy does not fall with eps",
        "accuracy rises with eps",
        "black-box beats white-box",
        "black-box controls",
        "exit switches",
        "masked on some samples",
        "missed by attacks",
        "noise as good as gradients",
        "silent success",
        "unbounded attack fails",
        "unfinished optimisation",
        "zero gradients",
    }
)
"""Names of the flags that another loss, or more steps, may clear."""


def flags_of(evaluation: Evaluation) -> tuple[Flag, ...]:
    """Return all flags of an evaluation, failures first.

    If runs under several settings were merged, a flag about the attack (``OF_THE_ATTACK``) is cleared by a setting that does not
    raise it, provided that its gradient attacks on every exit are finished: the worst case includes these. Flags about the model
    are never cleared, nor do seeds of the same setting clear each other.
    """
    by_setting: dict[str, list[TrustResult]] = {}
    for probe in evaluation.probes:
        by_setting.setdefault(canonical_json(probe.settings), []).append(probe)
    rounds = {setting: _of_probes(probes, evaluation) for setting, probes in by_setting.items()}
    backed = [found for setting, found in rounds.items() if setting in evaluation.attacked_settings]
    standing = [
        flag
        for found in rounds.values()
        for name, flag in found.items()
        if name not in OF_THE_ATTACK or all(name in other for other in backed)
    ]
    found = [*standing, *stored.flags(evaluation), *_of_undefined(evaluation), *_of_rule(evaluation.record)]
    unique: dict[str, Flag] = {}
    for flag in sorted(found, key=lambda flag: -LEVELS.index(flag.level)):
        unique.setdefault(flag.name, flag)
    return tuple(unique.values())


def _of_undefined(evaluation: Evaluation) -> list[Flag]:
    """Return the failure that the network has no finite logits on images of the attacks."""
    number = sum(attack.search.undefined for attack in evaluation.attacks)
    number += sum(attack.undefined for attack in evaluation.unfinished)
    if not number:
        return []
    message = (
        f"the network returns NaN or infinite logits on {number} of the attacks' images: these samples count as if they had "
        "not been attacked; return finite logits for every image"
    )
    return [Flag("undefined outputs", "failure", {"images": number}, message)]


def _of_rule(record: RunRecord) -> list[Flag]:
    """Return the warning that the exit rule gives attacks no gradient."""
    if parse_policy(record.policy, record.n_exits, record.calibration).has_gradient:
        return []
    message = (
        "the exit rule has no slack, so attacks have no gradient towards opening its gates: adaptive moves the predictions alone "
        "and then searches at random, and slowdown finds little; implement slack in the rule (docs/your-own-rule.md)"
    )
    return [Flag("gates without a gradient", "warning", {}, message)]


def _of_probes(probes: Sequence[TrustResult], evaluation: Evaluation) -> dict[str, Flag]:
    found: dict[str, Flag] = {}
    for probe in probes:
        for flag in _of_probe(probe, evaluation):
            if flag.name not in found or LEVELS.index(flag.level) > LEVELS.index(found[flag.name].level):
                found[flag.name] = flag
    return found


def _of_probe(probe: TrustResult, evaluation: Evaluation) -> list[Flag]:
    record = evaluation.record
    robust = set(np.flatnonzero(evaluation.worst).tolist()) if evaluation.attacks else None
    samples = len(probe.right)
    found = [*outputs.flags(probe.outputs), *gradients.flags(probe.gradients), *search_model.flags(probe.search_model)]
    white_box = None
    if probe.path is not None and probe.radii is not None and probe.soft_rule is not None:
        white_box = [*probe.path.on_path, *probe.soft_rule]
        found += path.flags(probe.path, probe.right, robust)
        found += radii.flags(probe.radii, samples, _usual_eps(record))
    if probe.controls is not None:
        found += _of_controls(probe.controls, white_box, samples, robust)
    if probe.hidden is not None:
        found += hidden.flags(probe.hidden, robust)
    return found


def _usual_eps(record: RunRecord) -> float:
    """Return the usual radius for a record's dataset; for one that is not known here, that of images in memory."""
    if record.usual_eps is not None:
        return record.usual_eps
    try:
        return dataset_card(record.dataset).eps[record.norm]
    except UnknownName:
        return USUAL_EPS[record.norm]


def _of_controls(numbers: Controls, white_box: Sequence[int] | None, samples: int, robust: set[int] | None) -> list[Flag]:
    """The flags of the controls; since version 2 of the probe they may have more samples than the other measurements."""
    if numbers.right is None:
        return controls.flags(numbers, white_box, samples, robust)
    return controls.flags(numbers, numbers.gradients, len(numbers.right), robust, numbers.looks)

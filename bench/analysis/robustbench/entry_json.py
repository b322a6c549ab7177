"""Exports an evaluation in the fields of RobustBench's ``model_info`` files, with the results of each exit nested in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exitbench.errors import UserError
from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import eps_text, real_number, whole_number
from exitbench.scoring.evaluation import Evaluation, Result, accuracy
from exitbench.scoring.ranking import flags_text, worst_status

AUTOATTACK = "autoattack"

GIVEN = ("link", "name", "authors", "additional_data", "number_forward_passes", "venue", "architecture", "reported", "footnote")
"""Fields that cannot be measured; null unless the user gives them."""


def robustbench_entry(evaluation: Evaluation, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry as a JSON object; accuracies are texts in per cent, as in RobustBench's own files.

    ``autoattack_acc`` is null unless AutoAttack was run on the deployed rule. ``external`` is the worst case over all attacks
    and is present only if that is lower: RobustBench ranks by it, and cannot read null.

    Args:
        evaluation: The evaluation.
        given: Values of ``GIVEN`` fields, given by the user.
    """
    record = evaluation.record
    autoattack = _robust(evaluation, AUTOATTACK)
    worst = accuracy(evaluation.worst)[0]
    lower = bool(evaluation.attacks) and (autoattack is None or worst < autoattack)
    told = {name: given.get(name) for name in GIVEN}
    return {
        **{name: told[name] for name in ("link", "name", "authors", "additional_data", "number_forward_passes")},
        "dataset": record.dataset,
        "venue": told["venue"],
        "architecture": told["architecture"],
        "eps": eps_text(record.eps),
        "clean_acc": _per_cent(accuracy(evaluation.clean.correct)[0]),
        "reported": told["reported"],
        "autoattack_acc": _per_cent(autoattack),
        **({"external": _per_cent(worst)} if lower else {}),
        "unreliable": bool(evaluation.failures) if evaluation.checked else None,
        "footnote": told["footnote"],
        "exits": [_exit(evaluation, k) for k in range(1, record.n_exits + 1)],
        "exitbench": _evaluation(evaluation),
    }


def _exit(evaluation: Evaluation, k: int) -> dict[str, Any]:
    """Return the results of exit k, from 1, as if every image left there."""
    record, alone = evaluation.record, _named(evaluation, f"{AUTOATTACK}:{k}")
    if alone is None and record.n_exits == 1:
        alone = _named(evaluation, AUTOATTACK)
    return {
        "exit": k,
        "mmacs": record.mmacs[k - 1],
        "taken": evaluation.exit_counts(evaluation.clean)[k - 1],
        "clean_acc": _per_cent(evaluation.clean.exit_accuracy[k - 1]),
        "autoattack_acc": None if alone is None else _per_cent(alone.exit_accuracy[k - 1]),
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Return what is needed to interpret the numbers and has no field in RobustBench."""
    record = evaluation.record
    _, low, high = accuracy(evaluation.worst)
    same = ("model", "training", "weights", "source", "policy", "calibration", "norm", "n", "data")
    return {
        **{name: getattr(record, name) for name in same},
        **({} if record.grid is None else {"grid": record.grid}),
        "mean_mmacs": evaluation.mean_cost(evaluation.clean),
        "worst_case": _per_cent(accuracy(evaluation.worst)[0]) if evaluation.attacks else None,
        "worst_case_interval": [_per_cent(low), _per_cent(high)] if evaluation.attacks else None,
        "worst_case_status": worst_status(evaluation) if evaluation.attacks else "not attacked",
        "attacks": {attack.name: _per_cent(accuracy(evaluation.robust(attack))[0]) for attack in evaluation.attacks},
        "flags": flags_text(evaluation),
        "computed_with": evaluation.computed_with(),
    }


def _named(evaluation: Evaluation, name: str) -> Result | None:
    """Return the finished attack of that name that leaves the fewest samples robust, or None."""
    found = [attack for attack in evaluation.attacks if attack.name == name]
    return min(found, key=lambda attack: int(evaluation.robust(attack).sum()), default=None)


def _robust(evaluation: Evaluation, name: str) -> float | None:
    attack = _named(evaluation, name)
    return None if attack is None else accuracy(evaluation.robust(attack))[0]


def _per_cent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f}"


def given_fields(texts: Sequence[str]) -> dict[str, Any]:
    """Parse ``GIVEN`` fields from texts such as ``venue=ICLR 2020``, each to the type that RobustBench uses.

    Raises:
        UserError: If a text has another form, there is no such field, or the value has another type.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in GIVEN:
            raise UserError(
                f"--field {text!r}: the form is NAME=VALUE, the names are {', '.join(GIVEN)}; all others are measured"
            )
        given[name] = _typed(name, value.strip())
    return given


def _typed(name: str, value: str) -> object:
    if name == "additional_data":
        if value.lower() not in ("true", "false"):
            raise UserError(f"--field additional_data={value}: it is true or false")
        return value.lower() == "true"
    if name == "number_forward_passes":
        try:
            passes = whole_number(value)
        except InvalidValue:
            passes = 0
        if passes < 1:
            raise UserError(f"--field number_forward_passes={value}: it is a number, 1 or more")
        return passes
    if name == "reported":
        try:
            share = real_number(value)
        except InvalidValue:
            share = -1.0
        if not 0 <= share <= 100:
            raise UserError(f"--field reported={value}: it is an accuracy in per cent, 0 to 100")
    return value

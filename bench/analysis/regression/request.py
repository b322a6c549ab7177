"""Merges options, baseline and defaults, in this order of precedence, into the evaluation to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exitbench.analysis.regression.baseline import describe, find_baseline, read_baseline
from exitbench.analysis.regression.snapshot import Snapshot
from exitbench.attacks.settings import KNOBS
from exitbench.data.references import dataset_given
from exitbench.errors import UserError, as_user_errors
from exitbench.models.factory import is_reference, reported_name
from exitbench.runner.prepare import Prepared

BASELINES = Path("baselines")
"""Folder of baselines, relative to the working directory."""

OWN = "own"
"""Value of ``--policy`` for the new weights' own policy instead of the baseline's."""

PRESETS: Mapping[str, Mapping[str, Any]] = {"quick": {"attacks": ["average", "adaptive"], "n": 128, "budget": 100}}
"""Named settings for new baselines."""

SETTINGS = ("attacks", "dataset", "n", "norm", "eps", *KNOBS)
"""Options that a baseline records as given; those left to a default are left to it again."""


def baseline_for(asked: Mapping[str, Any], path: Path | None, *, needed: bool) -> tuple[Path | None, Snapshot | None]:
    """Return the baseline and its file: that at ``path``, or the one in ``BASELINES`` for the requested model.

    Training, dataset and threat model narrow the search if they are given.

    Args:
        asked: The given options, at least ``model``.
        path: Path of the baseline; None to search for it.
        needed: Whether a baseline is required.

    Raises:
        UserError: If a required baseline is missing, several match, or one cannot be read.
    """
    if path is not None:
        return path, read_baseline(path) if needed or path.exists() else None
    wanted = {name: asked[name] for name in ("model", "training", "dataset", "norm", "eps", "grid") if name in asked}
    wanted["model"] = reported_name(wanted["model"])
    if wanted.get("dataset") == "auto":
        del wanted["dataset"]
    if "dataset" in wanted:
        with as_user_errors():
            wanted["dataset"] = dataset_given(wanted["dataset"])
    found = find_baseline(BASELINES, wanted)
    if found is None and needed:
        raise UserError(
            f"there is no baseline of {describe(wanted)} in {BASELINES}/; name one with --baseline, or make one with "
            f"`exitbench check --model {asked['model']} --update --preset quick`"
        )
    return found or (None, None)


def merged(defaults: Mapping[str, Any], asked: Mapping[str, Any], baseline: Snapshot | None) -> dict[str, Any]:
    """Values for ``exitbench.runner.prepare.Request.of``, ``attacks`` and ``seed``.

    The deployed rule is the baseline's unless another, or ``OWN``, is asked for: new weights under recalibrated thresholds
    are another system, whose accuracy may rise because it costs more.
    """
    values = {**defaults, **asked}
    if baseline is not None:
        subject = baseline.subject
        values = {**defaults, **baseline.settings, "seed": subject.seed, "policy": subject.policy, **asked}
        if values["policy"] == subject.policy:
            values["calibration"] = subject.calibration
        if values["weights"] is None and values["training"] is None and not is_reference(values["model"]):
            values["training"] = subject.training
    if values["policy"] == OWN:
        values["policy"] = None
    return values


def settings_of(values: Mapping[str, Any], names: Sequence[str], prepared: Prepared) -> dict[str, Any]:
    """Return the options that a baseline records, with dataset and n as resolved, since they depend on the machine."""
    turned_out = {"attacks": list(names), "dataset": prepared.split.dataset, "n": prepared.n}
    when_given = {name: list(values[name]) for name in ("mean", "std") if values.get(name) is not None}
    if values.get("grid") is not None:
        when_given["grid"] = values["grid"]
    return {**{name: turned_out.get(name, values.get(name)) for name in SETTINGS}, **when_given}

"""Compares two measurements of speed: what got slower, what quicker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exitbench.errors import UserError

NOISE = 1.1
"""Factor within which two measurements count as the same."""

SHORT = 0.05
"""Seconds below which both count as the same."""

SAME = ("model", "training", "dataset", "n", "steps", "searched_on", "machine", "versions")
"""What should be the same in both for their figures to be comparable."""


@dataclass(frozen=True)
class Change:
    """The change of one figure.

    Attributes:
        figure: What was measured.
        before, after: Its value in both measurements.
        slower: Factor by which it got slower; below 1 it got quicker.
    """

    figure: str
    before: float
    after: float
    slower: float


def read_measurement(path: Path) -> dict[str, Any]:
    """Read what ``bench perf --output`` wrote, or that part of what ``docs/perf/gpu-check.sh`` did, with its run.

    Raises:
        UserError: If the file is not readable or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable measurement ({error})") from error
    if measured := _part(found, "perf"):
        run = _part(found, "run")
        found = {**measured, "run": run} if run else measured
    if not isinstance(found, dict) or "throughput" not in found:
        raise UserError(f"{path} is not a measurement of `exitbench perf --output`")
    return found


def _part(found: Any, step: str) -> dict[str, Any] | None:
    """Return what a step of the check on a GPU found; None if there is nothing."""
    ended = found.get(step) if isinstance(found, dict) else None
    part = ended.get("found") if isinstance(ended, dict) else None
    return part if isinstance(part, dict) else None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the figures that both have, those that got slower first."""
    old, new = figures(before), figures(after)
    found = []
    for name in old.keys() & new.keys():
        (value, rate), (now, _) = old[name], new[name]
        if value == now == 0 or (name.endswith(", s") and max(value, now) < SHORT):
            factor = 1.0
        else:
            worse, better = (value, now) if rate else (now, value)
            factor = worse / better if better else float("inf")
        found.append(Change(name, value, now, factor))
    return sorted(found, key=lambda change: (-change.slower, change.figure))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what the two measurements do not have in common, in words."""
    return [f"{name}: {before.get(name)} before, {after.get(name)} now" for name in SAME if before.get(name) != after.get(name)]


def figures(found: Mapping[str, Any]) -> dict[str, tuple[float, bool]]:
    """Return the figures of a measurement by name, each with whether it is a rate, of which more is better."""
    rates = found["throughput"]
    named: dict[str, tuple[float, bool]] = {
        "forward and gradient, plain model, images/s": (rates["plain"], True),
        "forward and gradient, search model, images/s": (rates["twin"], True),
    }
    if "search" in found:
        named["the adaptive attack, gradients/s"] = (found["search"]["gradients"], True)
    for attack, each in found.get("per_gradient", {}).items():
        for kind in ("launches", "waits"):
            named[f"{kind} per gradient, {attack}"] = (each[kind], False)
    for stage, took in found.get("run", {}).get("seconds", {}).items():
        named[f"a whole run, {stage}, s"] = (took, False)
    if "run" in found:
        named["a whole run, s"] = (found["run"]["total"], False)
    if found.get("suite"):
        named["the suite to the accuracy of the loops by hand, s"] = (found["suite"][-1]["seconds"], False)
    return named

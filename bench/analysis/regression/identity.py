"""Checks that two evaluations can be compared: they must have the same samples, threat model, policy and attacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from exitbench.analysis.regression.snapshot import Snapshot, SnapshotSubject
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import canonical_json

_SAME = ("model", "dataset", "n", "norm", "eps", "grid", "data")
_DEPLOYED = ("policy", "costs", "target")
"""Fields of an attack's spec that depend on the target: its policy and the costs of its exits; the exit is in the name."""


def differences(baseline: Snapshot, now: Snapshot, *, own_policy: bool = False) -> list[str]:
    """Return why ``now`` is not a re-run of ``baseline``, one line per reason; empty if it is one.

    Seed, weights and their costs may differ, as they are what a gate tests. The digest of the policy's calibration may differ
    if the thresholds are the same.

    Args:
        baseline: The baseline.
        now: The new snapshot, measured or planned.
        own_policy: Whether the new weights have their own policy.
    """
    found = [
        f"{name} {_text(name, now.subject)}, the baseline has {_text(name, baseline.subject)}"
        for name in _SAME
        if getattr(now.subject, name) != getattr(baseline.subject, name)
    ]
    if [line.partition(" ")[0] for line in found] == ["data"]:
        found = [f"the images or labels are others: data {now.subject.data[:12]}, not {baseline.subject.data[:12]}"]
    if not own_policy and not _same_policy(baseline, now):
        found.append(
            f"policy {now.subject.policy}, the baseline has {baseline.subject.policy}: another system "
            "(--policy own judges the new weights under their own rule)"
        )
    return [*found, *_attacks(baseline.attacks, now.attacks)]


def comparable(spec: Any) -> Any:
    """Return a spec without the fields that depend on the target: the policy and the costs of its exits."""
    if isinstance(spec, Mapping):
        return {name: comparable(value) for name, value in spec.items() if name not in _DEPLOYED}
    return [comparable(value) for value in spec] if isinstance(spec, (list, tuple)) else spec


def _tells_code(spec: Any) -> bool:
    if isinstance(spec, Mapping):
        return "code" in spec or any(map(_tells_code, spec.values()))
    return isinstance(spec, list) and any(map(_tells_code, spec))


def _without_code(spec: Any) -> Any:
    if isinstance(spec, Mapping):
        return {name: _without_code(value) for name, value in spec.items() if name != "code"}
    return [_without_code(value) for value in spec] if isinstance(spec, list) else spec


def _attacks(baseline: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if set(baseline) != set(now):
        yield f"attacks {', '.join(now) or 'none'}; the baseline has {', '.join(baseline) or 'none'}"
        return
    for name, spec in now.items():
        then, changed = comparable(baseline[name]), comparable(spec)
        if not _tells_code(then):  # an attack of a package, in a baseline of a version that did not record its code
            changed = _without_code(changed)
        if canonical_json(then) != canonical_json(changed):
            yield f"attack {name}: {'; '.join(_changes(then, changed)) or 'another spec'}"


def _changes(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """Yield the leaves in which two specs differ, with their paths."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted({*then, *now}):
            yield from _changes(then.get(name), now.get(name), f"{where}.{name}" if where else name)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (before, after) in enumerate(zip(then, now, strict=True), start=1):
            yield from _changes(before, after, f"{where}[{i}]")
    elif then != now:
        yield f"{where} {now}, the baseline has {then}"


def _same_policy(one: Snapshot, other: Snapshot) -> bool:
    n_exits = one.subject.n_exits, other.subject.n_exits
    if n_exits[0] != n_exits[1]:
        return False
    return parse_policy(one.subject.policy, n_exits[0]) == parse_policy(other.subject.policy, n_exits[1])


def _text(name: str, subject: SnapshotSubject) -> str:
    return subject.columns().get(name, "none")

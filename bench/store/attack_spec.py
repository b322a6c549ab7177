"""What an attack's specification says of it: its name, its goal, its ball and the rule that it attacks.

A record also holds a name and a goal, which whoever wrote the record chose. Here they are derived from the JSON values that the
key of every cell is made of. Any attack that is not one of ours keeps the name that it has, unless that is one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from exitbench.models.spec import canonical_json

if TYPE_CHECKING:  # records are read with cells' sizes, which are read with specifications
    from exitbench.store.run_record import AttackEntry, RunRecord

Spec = Mapping[str, Any]

CLEAN = "none"
"""Name of the attack of clean cells."""

_OURS = re.compile(
    rf"{CLEAN}|worst|all|(single|autoattack):\d+|average|max|max_average|average_max|adaptive|policy|slowdown:\w+|autoattack|"
    r"cascade|torchattacks:.*|(max_average|average_max)\[\d+\]"
)
"""Names that mean an attack of ours, so that no other specification may have them."""

_BY_TYPE = {"Clean": CLEAN, "PolicyAttack": "adaptive", "AdaptiveAtOneExit": "adaptive", "Cascade": "cascade"}
"""Names of the attacks that their types alone tell."""

_OWN_TYPES = frozenset({*_BY_TYPE, "APGD", "APGDTargeted", "AutoAttack", "BestOf", "PGD", "Slowdown", "TorchAttack", "WRM"})


def as_specified(record: RunRecord) -> RunRecord:
    """Return the record with each attack's name and goal as its specification says."""
    components = _components(record.attacks)
    attacks = tuple(
        msgspec.structs.replace(attack, name=_named(attack, components), goal=_goal(attack.spec) or attack.goal)
        for attack in record.attacks
    )
    return record if attacks == record.attacks else msgspec.structs.replace(record, attacks=attacks)


def is_bounded(spec: Spec) -> bool:
    """Return whether every candidate of an attack of ours was certified to lie in its ball; false where that is not known."""
    if _type(spec) not in _OWN_TYPES:
        return False
    return _type(spec) != "WRM" and all(is_bounded(child) for child in spec.get("attacks", ()))


def _named(attack: AttackEntry, components: Mapping[str, str]) -> str:
    derived = _name(attack.spec) or components.get(canonical_json(attack.spec))
    if derived is not None:
        # The parameters of torchattacks are reported as they were typed.
        return attack.name if attack.name.partition("(")[0] == derived else derived
    return str(attack.spec.get("type", "unknown")) if _OURS.fullmatch(attack.name) else attack.name


def _components(attacks: Sequence[AttackEntry]) -> dict[str, str]:
    """Return the names of what selections choose among, by specification."""
    found: dict[str, str] = {}
    for attack in attacks:
        if _type(attack.spec) == "BestOf":
            for i, child in enumerate(attack.spec.get("attacks", ()), start=1):
                found.setdefault(canonical_json(child), f"{_name(attack.spec) or attack.name}[{i}]")
    return found


def _name(spec: Spec) -> str | None:
    """Return the name of an attack of ours on the command line; None for any other, and for one that starts from another."""
    try:
        return _name_by_type(spec)
    except (KeyError, TypeError, ValueError):
        return None


def _name_by_type(spec: Spec) -> str | None:
    kind = _type(spec)
    if kind in ("PGD", "APGD", "WRM", "APGDTargeted"):
        return _ascent(spec)
    if kind == "BestOf":
        return _selection(spec)
    if kind == "AutoAttack":
        return "autoattack" if isinstance(spec["target"], Mapping) else f"autoattack:{int(spec['target'])}"
    if kind == "TorchAttack":
        return f"torchattacks:{spec['name']}"
    if kind == "Slowdown":
        return f"slowdown:{spec['mode']}"
    return _BY_TYPE.get(kind)


def _ascent(spec: Spec) -> str | None:
    if isinstance(spec["start"], Mapping):
        return None
    over = spec["over"] if "over" in spec else spec["objective"]["over"]
    if over["type"] == "Only":
        return f"single:{int(over['exit'])}"
    return {"Mean": "average", "Max": "max"}.get(over["type"])


def _selection(spec: Spec) -> str | None:
    """Return which of our selections this is, by what it chooses among and by what it chooses."""
    children, by = spec["attacks"], spec["by"]["over"]["type"]
    singles = [f"single:{k}" for k in range(1, len(children) + 1)]
    if by == "Mean" and [_name(child) for child in children] == singles:
        return "max_average"
    first, *rest = children
    starts = [_name(child["start"]) if isinstance(child["start"], Mapping) else None for child in rest]
    averages = {_name({**child, "start": "random"}) for child in children}
    if by == "Max" and _name(first) == "average" and averages == {"average"} and starts == singles[: len(rest)]:
        return "average_max"
    return None


def _goal(spec: Spec) -> str | None:
    """Return what an attack of ours raises; None for any other."""
    kind = _type(spec)
    return None if kind not in _OWN_TYPES else "cost" if kind == "Slowdown" else "error"


def _type(spec: Spec) -> str:
    return str(spec.get("type", ""))

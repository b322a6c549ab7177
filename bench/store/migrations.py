"""From each older schema of the store's files to the next: JSON values in, JSON values out, which are checked after the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exitbench.models.number_text import eps_text
from exitbench.models.stored import ATTACKS_RENAMED, Content

Spec = Mapping[str, Any]


def run_record_1_to_2(content: Content) -> Content:
    """Until schema 2, what an attack is after and how it was run could only be told from its spec; one was renamed."""
    attacks = content.get("attacks")
    return {**content, "attacks": list(map(_attack_1_to_2, attacks))} if isinstance(attacks, list) else content


def error_1_to_2(content: Content) -> Content:
    """Errors of the first versions did not always name their attack, and an attack was renamed."""
    return {**content, "attack": renamed(content.get("attack", "unknown"))}


def baseline_1_to_2(content: Content) -> Content:
    """An attack was renamed: what was asked for, specs and verdicts name attacks."""
    found = {name: _keys_renamed(value) if name in ("attacks", "verdicts") else value for name, value in content.items()}
    if isinstance(settings := content.get("settings"), dict) and isinstance(asked := settings.get("attacks"), list):
        found["settings"] = {**settings, "attacks": list(map(renamed, asked))}
    return found


def renamed(name: Any) -> Any:
    """What an attack of schema 1 is called now."""
    return ATTACKS_RENAMED.get(name, name) if isinstance(name, str) else name


def _keys_renamed(value: Any) -> Any:
    return {renamed(name): each for name, each in value.items()} if isinstance(value, dict) else value


def _attack_1_to_2(attack: Any) -> Any:
    if not isinstance(attack, dict) or not isinstance(spec := attack.get("spec"), dict):
        return attack
    goal = "cost" if spec.get("type") == "Slowdown" else "error"
    return {"goal": goal, "summary": _summary(spec), **attack, "name": renamed(attack.get("name"))}


def _summary(spec: Spec) -> str:
    """How an attack of schema 1 was run; its numbers and words by name, where it is not one of ours as it was then."""
    describe = _SUMMARIES.get(str(spec.get("type")))
    try:
        if describe is not None:
            return describe(spec)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError):
        pass
    plain = sorted((name, value) for name, value in spec.items() if name not in ("type", "version"))
    return ", ".join(f"{name}={value}" for name, value in plain if isinstance(value, (bool, int, float, str)))


def _best_of(spec: Spec) -> str:
    over = str(spec["by"]["over"]["type"]).lower()
    return f"best of {len(spec['attacks'])} by {over} {_loss(spec['by'])}; {_summary(spec['attacks'][0])}"


def _cascade(spec: Spec) -> str:
    return f"{len(spec['attacks'])} attacks in turn, each on the survivors of those before"


def _torchattack(spec: Spec) -> str:
    return ", ".join(f"{name}={value}" for name, value in spec["parameters"]) or "its defaults"


def _adaptive(spec: Spec) -> str:
    return f"soft gates, then exit by exit; at most {spec['budget']} gradients"


def _slowdown(spec: Spec) -> str:
    cycles = f", {spec['cycles']} cycles" if spec["cycles"] > 1 else ""
    return f"gates shut, then soft gates; {spec['steps']} steps each{cycles}"


def _apgd(spec: Spec) -> str:
    return f"apgd-{spec['steps']}{_restarts(spec)}, {_loss(spec['objective'])}"


def _apgd_targeted(spec: Spec) -> str:
    return f"apgd-{spec['steps']}, dlr towards {spec['n_targets']} classes"


def _wrm(spec: Spec) -> str:
    return f"wrm-{spec['steps']}, gamma {spec['region']['gamma']:g}, {_loss(spec['objective'])}; not bound to the ball"


def _pgd(spec: Spec) -> str:
    if spec["steps"] == 1 and spec["step_size"] == spec["region"]["eps"] and spec["start"] != "random":
        return f"fgsm, {_loss(spec['objective'])}"
    step = eps_text(spec["step_size"])
    return f"pgd-{spec['steps']}{_restarts(spec)}, step {step}, {_loss(spec['objective'])}, keep {spec['keep']}"


def _restarts(spec: Spec) -> str:
    return f" x{spec['restarts']}" if spec["restarts"] > 1 else ""


def _loss(objective: Spec) -> str:
    return str(objective["loss"]["type"]).lower()


_SUMMARIES: dict[str, Callable[[Spec], str]] = {
    "APGD": _apgd,
    "APGDTargeted": _apgd_targeted,
    "AutoAttack": lambda spec: str(spec["variant"]),
    "BestOf": _best_of,
    "Cascade": _cascade,
    "Clean": lambda spec: "",
    "PGD": _pgd,
    "PolicyAttack": _adaptive,
    "Slowdown": _slowdown,
    "TorchAttack": _torchattack,
    "WRM": _wrm,
}
"""By the class names of schema 1."""

"""How an attack was run, in a few words, from its stored description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exitbench.scoring.evaluation import Result
from exitbench.store.identity import eps_text

Spec = Mapping[str, Any]


def method_text(result: Result) -> str:
    """Method, steps and loss of an attack, and whose package it is; ``-`` for what has none."""
    describe = _TEXTS.get(result.spec["type"])
    text = describe(result.spec) if describe else None
    return ", ".join(part for part in (text, result.implementation) if part) or "-"


def _best_of(spec: Spec) -> str:
    over = str(spec["by"]["over"]["type"]).lower()
    first = spec["attacks"][0]
    return f"best of {len(spec['attacks'])} by {over} {_loss(spec['by'])}; {_TEXTS[first['type']](first)}"


def _cascade(spec: Spec) -> str:
    return f"{len(spec['attacks'])} attacks in turn, each on the survivors of those before"


def _torchattack(spec: Spec) -> str:
    return ", ".join(f"{name}={value}" for name, value in spec["parameters"]) or "its defaults"


def _policy(spec: Spec) -> str:
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


_TEXTS: dict[str, Callable[[Spec], str]] = {
    "AutoAttack": lambda spec: str(spec["variant"]),
    "APGD": _apgd,
    "APGDTargeted": _apgd_targeted,
    "BestOf": _best_of,
    "Cascade": _cascade,
    "PGD": _pgd,
    "PolicyAttack": _policy,
    "Slowdown": _slowdown,
    "TorchAttack": _torchattack,
    "WRM": _wrm,
}

"""The probe: all trust measurements on the first slice of an evaluation, stored under a separate key."""

from __future__ import annotations

import platform
import time
from typing import Any

import torch

from exitbench.attacks.noise import Noise
from exitbench.attacks.settings import AttackSettings
from exitbench.checks import controls, gradients, outputs, path, radii, search_model
from exitbench.checks.subject import Subject
from exitbench.checks.trace import SoftRule, ascend
from exitbench.data.split import Batch
from exitbench.models.spec import describe
from exitbench.runner.prepare import Prepared
from exitbench.runner.probe_key import VERSION, probe_key, probed_batch
from exitbench.store.store import Store
from exitbench.target.target import Target


def ensure_probe(prepared: Prepared, seed: int, store: Store) -> str | None:
    """Run the probe unless it is stored; as with attacks, an error is stored apart and the probe is tried again next time.

    Returns:
        The error message, or None if the probe is stored.
    """
    key = probe_key(prepared, seed)
    if store.read_probe(key) is not None:
        return None
    try:
        numbers = probe(prepared.target, prepared.settings, probed_batch(prepared), seed)
    except Exception as error:  # noqa: BLE001 - the model is the user's code: whatever it raises is a result
        message = f"{type(error).__name__}: {error}"
        store.write_error(key, {"attack": "trust checks", "error": message})
        return message
    store.write_probe(key, numbers)
    return None


def probe(target: Target, settings: AttackSettings, batch: Batch, seed: int) -> dict[str, Any]:
    """Take all measurements; ``exitbench.scoring.flags`` derives flags from them."""
    started = time.perf_counter()
    device = next(target.model.parameters()).device
    x, y = batch.x.to(device), batch.y.to(device)
    subject = Subject(target.model, target.policy, x, y, Noise(seed, batch.indices), settings)
    is_right = ~subject.fails(x)
    right = subject.rows(is_right)
    found: dict[str, Any] = {"outputs": outputs.measure(subject), "gradients": gradients.measure(subject)}
    found |= {"path": None, "soft_rule": None, "radii": None, "controls": controls.measure(right) if len(right.y) else None}
    x_adv = settings.region.start(x, subject.noise, 0)
    if any(share is not None for share in found["gradients"]["zero"]):
        trace = ascend(subject, settings.region, settings.steps, settings.step_size)
        x_adv = trace.last
        if len(right.y):
            found["path"] = path.measure(right, trace.rows(is_right), settings.keep)
            found["soft_rule"] = _broken_by_soft_rule(right.rows(~trace.broken[is_right]))
            usual = (settings.steps, settings.step_size) == (radii.STEPS, radii.STEP_RATIO * settings.region.eps)
            found["radii"] = radii.measure(right, found["path"]["on_path"] if usual else None)
    found["twin"] = search_model.measure(subject, target.search_model, x_adv, target.used_config.precision)
    return {
        "version": VERSION,
        "seed": seed,
        "settings": describe(settings),
        "samples": list(batch.indices),
        "right": list(right.noise.samples),
        **found,
        "provenance": {
            "seconds": round(time.perf_counter() - started, 3),
            "device": str(device),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _broken_by_soft_rule(left: Subject) -> list[int]:
    """Return the dataset indices of the samples in ``left`` that an ascent on the soft deployed rule breaks."""
    settings = left.settings
    if not len(left.y):
        return []
    trace = ascend(left, settings.region, settings.steps, settings.step_size, objective=SoftRule(left.policy))
    return left.names(trace.broken)

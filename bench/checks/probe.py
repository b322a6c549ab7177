"""The probe: all trust measurements on the first slice of an evaluation, stored under a separate key."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import torch

from exitbench.attacks.base import least_classes_of
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Margin
from exitbench.attacks.settings import AttackSettings
from exitbench.checks import controls, gradients, outputs, path, radii, search_model
from exitbench.checks.growth import grown
from exitbench.checks.subject import Subject
from exitbench.checks.trace import SoftRule, ascend
from exitbench.data.split import Batch
from exitbench.models.errors import ChangedOutputs
from exitbench.models.spec import description
from exitbench.runner.prepare import Prepared
from exitbench.runner.probe_key import VERSION, probe_key, probed_batch
from exitbench.store.cell_error import CellError
from exitbench.store.store import Store
from exitbench.store.trust_result import Controls, TrustProvenance, TrustResult
from exitbench.target.target import Target


def ensure_probe(prepared: Prepared, seed: int, store: Store) -> str | None:
    """Run the probe unless it is stored; as with attacks, an error is stored apart and the probe is tried again next time.

    Returns:
        The error message, or None if the probe is stored.

    Raises:
        ChangedOutputs: If the network returns another number of exits than at first.
    """
    key = probe_key(prepared, seed)
    if store.read_probe(key) is not None:
        return None
    try:
        more = prepared.split.batch
        result = probe(key, prepared.target, prepared.settings, probed_batch(prepared), seed, more, prepared.n)
    except ChangedOutputs:
        raise
    except Exception as error:  # noqa: BLE001 - the model is the user's code: whatever it raises is a result
        message = f"{type(error).__name__}: {error}"
        store.write_error(key, CellError(attack="trust checks", error=message))
        return message
    store.write_probe(result)
    return None


def probe(
    key: str,
    target: Target,
    settings: AttackSettings,
    batch: Batch,
    seed: int,
    more: Callable[[int, int], Batch] | None = None,
    n: int = 0,
) -> TrustResult:
    """Take all measurements; ``exitbench.scoring.flags`` derives flags from them.

    Args:
        key: Key of the result in the store.
        target: What is probed.
        settings: Of the evaluation's gradient attacks.
        batch: The samples.
        seed: Of the evaluation.
        more: Makes a batch of the evaluation's samples ``start..stop - 1``, for comparisons that ``batch`` is too small to
            decide; None for no more.
        n: Number of samples of the evaluation.
    """
    started = time.perf_counter()
    device = next(target.model.parameters()).device
    x, y = batch.x.to(device), batch.y.to(device)
    asked, settings = settings, with_defined_loss(settings, target.n_classes)
    subject = Subject(target.model, target.policy, x, y, Noise(seed, batch.indices), settings)
    is_right = ~subject.fails(x)
    right = subject.rows(is_right)
    of_outputs, of_gradients = outputs.measure(subject), gradients.measure(subject)
    of_path = soft_rule = of_radii = of_controls = None
    x_adv = settings.region.start(x, subject.noise, 0)
    if any(share is not None for share in of_gradients.zero):
        trace = ascend(subject, settings.region, settings.steps, settings.step_size)
        x_adv = trace.last
        if len(right.y):
            of_path = path.measure(right, trace.rows(is_right), settings.keep)
            soft_rule = _broken_by_soft_rule(right.rows(~trace.broken[is_right]))
            usual = (settings.steps, settings.step_size) == (radii.STEPS, radii.STEP_RATIO * settings.region.eps)
            of_radii = radii.measure(right, of_path.on_path if usual else None)
            first = _controls(right, (*of_path.on_path, *soft_rule))
            of_controls = grown(first, lambda batch: _of_more(target, settings, batch, seed), more, n)
    if len(right.y) and of_controls is None:
        of_controls = controls.measure(right)
    return TrustResult(
        key=key,
        version=VERSION,
        seed=seed,
        settings=description(asked),
        samples=tuple(batch.indices),
        right=right.noise.samples,
        outputs=of_outputs,
        gradients=of_gradients,
        path=of_path,
        soft_rule=soft_rule,
        radii=of_radii,
        controls=of_controls,
        search_model=search_model.measure(subject, target.search_model, x_adv, target.used_config.precision),
        provenance=TrustProvenance(
            seconds=round(time.perf_counter() - started, 3),
            device=str(device),
            torch=str(torch.__version__),
            python=platform.python_version(),
        ),
    )


def with_defined_loss(settings: AttackSettings, n_classes: int | None) -> AttackSettings:
    """Return the settings, with the margin in place of a loss that is undefined for so few classes."""
    is_defined = n_classes is None or least_classes_of(settings.untargeted_loss) <= n_classes
    return settings if is_defined else replace(settings, loss=Margin())


def _controls(right: Subject, white_box: tuple[int, ...]) -> Controls:
    return msgspec.structs.replace(controls.measure(right), right=right.noise.samples, gradients=white_box)


def _of_more(target: Target, settings: AttackSettings, batch: Batch, seed: int) -> Controls:
    """Return the numbers of the controls, and what gradients break, on further samples."""
    device = next(target.model.parameters()).device
    x, y = batch.x.to(device), batch.y.to(device)
    subject = Subject(target.model, target.policy, x, y, Noise(seed, batch.indices), settings)
    right = subject.rows(~subject.fails(x))
    if not len(right.y):
        return Controls(noise=(), search=(), right=(), gradients=())
    trace = ascend(right, settings.region, settings.steps, settings.step_size)
    return _controls(right, (*right.names(trace.broken), *_broken_by_soft_rule(right.rows(~trace.broken))))


def _broken_by_soft_rule(left: Subject) -> tuple[int, ...]:
    """Return the dataset indices of the samples in ``left`` that an ascent on the soft deployed rule breaks."""
    settings = left.settings
    if not len(left.y):
        return ()
    trace = ascend(left, settings.region, settings.steps, settings.step_size, objective=SoftRule(left.policy))
    return left.names(trace.broken)

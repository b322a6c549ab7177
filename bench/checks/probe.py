"""The probe: all trust measurements on the first slice of an evaluation, stored under a separate key."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import replace

import torch

from exitbench.attacks.base import least_classes_of
from exitbench.attacks.objectives import Margin
from exitbench.attacks.settings import AttackSettings
from exitbench.checks import controls, gradients, outputs, path, radii, search_model
from exitbench.checks.earlier_noise import noise_of
from exitbench.checks.further import Further, Subjects, attacked_softly, with_right
from exitbench.checks.growth import Growth
from exitbench.checks.trace import ascend
from exitbench.checks.transfer import undefended
from exitbench.data.cards import find_dataset
from exitbench.data.split import Batch
from exitbench.models.errors import ChangedOutputs
from exitbench.models.on_grid import on_grid
from exitbench.models.spec import description
from exitbench.runner.prepare import Prepared
from exitbench.runner.probe_key import HIDDEN, VERSION, probe_key, probed_batch
from exitbench.store.cell_error import CellError
from exitbench.store.store import Store
from exitbench.store.trust_result import TrustProvenance, TrustResult
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
        growth = Growth(prepared.split.batch, prepared.n)
        usual_eps = find_dataset(prepared.split.dataset).card.eps[prepared.settings.region.norm]
        result = probe(key, prepared.target, prepared.settings, probed_batch(prepared), seed, growth, usual_eps)
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
    growth: Growth | None = None,
    usual_eps: float = math.inf,
    version: int = VERSION,
) -> TrustResult:
    """Take all measurements; ``exitbench.scoring.flags`` derives flags from them.

    Args:
        key: Key of the result in the store.
        target: What is probed.
        settings: Of the evaluation's gradient attacks.
        batch: The samples.
        seed: Of the evaluation.
        growth: Further samples of the evaluation, for comparisons that ``batch`` is too small to decide; None for no more.
        usual_eps: The dataset's usual radius.
        version: Of the measurements; earlier ones have other random numbers, or do without some of them.
    """
    started = time.perf_counter()
    target = target.on_grid(settings.region.grid)
    growth = growth or Growth(None, 0)
    asked, settings = settings, with_defined_loss(settings, target.n_classes)
    subjects = Subjects(target, settings, seed, noise_of(version))
    subject, further = subjects.of(batch), Further(subjects, growth)
    is_right = ~subject.fails(subject.x)
    right = subject.rows(is_right)
    of_outputs = outputs.measure(subject, None if target.unused is None else on_grid(target.unused, target.grid))
    of_gradients = further.gradients(gradients.measure(subject))
    of_path = soft_rule = of_radii = of_controls = of_hidden = None
    x_adv = settings.region.start(subject.x, subject.noise, 0)
    if any(share is not None for share in of_gradients.zero):
        trace = ascend(subject, settings.region, settings.steps, settings.step_size)
        x_adv = trace.last
        if len(right.y):
            first_path = path.measure(right, trace.rows(is_right), settings.keep)
            of_right = trace.rows(is_right)
            soft = attacked_softly(right, of_right)
            soft_rule = right.rows(~of_right.broken).names(soft.broken)
            usual = (settings.steps, settings.step_size) == (radii.STEPS, radii.STEP_RATIO * settings.region.eps)
            of_radii = further.radii(radii.measure(right, first_path.on_path if usual else None), usual_eps)
            first_controls = with_right(right, (*first_path.on_path, *soft_rule))
            if version >= HIDDEN:
                further = replace(
                    further,
                    sources=undefended(batch.x.shape[1:], target.n_classes or int(subject.model(subject.x[:1]).shape[-1])),
                )
                of_hidden = further.hidden(further.without_gradients(right, of_right, soft, first_controls))
            of_controls = further.controls(first_controls)
            of_path = further.path(first_path)
    if len(right.y) and of_controls is None:
        of_controls = controls.measure(right)
    return TrustResult(
        key=key,
        version=version,
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
        hidden=of_hidden,
        search_model=search_model.measure(
            subject, on_grid(target.search_model, target.grid), x_adv, target.used_config.precision
        ),
        provenance=TrustProvenance(
            seconds=round(time.perf_counter() - started, 3),
            device=str(subject.x.device),
            torch=str(torch.__version__),
            python=platform.python_version(),
        ),
    )


def with_defined_loss(settings: AttackSettings, n_classes: int | None) -> AttackSettings:
    """Return the settings, with the margin in place of a loss that is undefined for so few classes."""
    is_defined = n_classes is None or least_classes_of(settings.untargeted_loss) <= n_classes
    return settings if is_defined else replace(settings, loss=Margin())

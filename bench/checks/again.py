"""Takes the measurements of a stored trust result again, and says where they are not what it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import KNOBS, AttackSettings
from exitbench.checks import controls, gradients, hidden, outputs, path, radii, search_model
from exitbench.checks.growth import Growth
from exitbench.checks.probe import probe
from exitbench.data.cards import dataset_card
from exitbench.data.split import Batch, Split
from exitbench.models.cost import measure_costs
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.policy_text import parse_policy
from exitbench.models.search_model import FOLDED, SearchConfig
from exitbench.models.spec import describe, description, digest
from exitbench.runner.probe_key import GROWN, HIDDEN
from exitbench.store.cell import SLICE
from exitbench.store.run_record import RunRecord
from exitbench.store.trust_result import Outputs, TrustResult
from exitbench.target.target import Target

SAMPLES = 0.1
"""Share of samples that rounding on another machine may move into or out of a set of an ascent's; one at least."""

SHARE = 0.05
"""Largest difference of a share that rounding explains."""

Differences = Iterator[tuple[str, object, object]]


def trust_mismatches(
    record: RunRecord,
    stored: TrustResult,
    model: EarlyExitNet,
    split: Split,
    robust: set[int] | None,
    unused: EarlyExitNet | None = None,
) -> list[str]:
    """Return how a stored trust result differs from what is measured on the network now, in words.

    Args:
        record: The run record that names the result.
        stored: The result.
        model: The plain network, in evaluation mode.
        split: The test split.
        robust: Indices of the samples that the whole evaluation leaves robust; None if it has no attack.
        unused: A copy of the network from before its first image; without one, what was measured with one is taken as stored.
    """
    batch = split.batch(0, min(SLICE, record.n))
    policy = parse_policy(record.policy, record.n_exits, record.calibration)
    what = {
        **{"version": stored.version, "weights": record.weights, "inputs": batch.input_hashes()},
        **{"settings": stored.settings, "policy": describe(policy), "seed": record.seed},
    }
    # Keys of earlier releases do without the number of samples.
    keys = {digest(what), digest({**what, "n": record.n})}
    if stored.key not in keys or stored.key != record.trust or stored.seed != record.seed:
        return ["it is not of these weights, samples, settings and this exit rule: its key is not their digest"]
    settings = settings_of(stored.settings)
    if settings is None or settings.region != ThreatModel(record.norm, record.eps, record.grid):
        return [f"its settings are not those of an evaluation in {record.threat.text}: {stored.settings}"]
    costs = measure_costs(model, split.shape)
    where = (record.training, record.weights, record.source)
    config = SearchConfig(True, "bf16") if stored.search_model.precision == "bf16" else FOLDED
    target = Target(record.model, model, *where, policy, costs, config, split.n_classes, unused=unused, grid=record.grid)
    usual = dataset_card(record.dataset).eps[record.norm] if record.usual_eps is None else record.usual_eps
    found = _measured(stored, target, settings, batch, Growth(split.batch, record.n), usual)
    told = [
        f"{name} is recorded as {_short(said)}, measured as {_short(again)}" for name, said, again in _differences(stored, found)
    ]
    if stored.version < GROWN:  # whose flags followed other rules
        return told
    said, again = _flags(stored, usual, robust), _flags(found, usual, robust)
    if said != again:
        told.append(f"it raises {', '.join(sorted(said)) or 'no flag'}, measured again {', '.join(sorted(again)) or 'none'}")
    return told


def _measured(
    stored: TrustResult, target: Target, settings: AttackSettings, batch: Batch, growth: Growth, usual_eps: float
) -> TrustResult:
    """Take the measurements of a stored result again, on as many samples, with its noise."""
    grown = probe(stored.key, target, settings, batch, stored.seed, growth, usual_eps, stored.version)
    if stored.version >= GROWN:
        return msgspec.structs.replace(grown, outputs=_as_measured(grown.outputs, stored.outputs))
    # Until then, only the controls grew.
    first = probe(stored.key, target, settings, batch, stored.seed, version=stored.version)
    return msgspec.structs.replace(first, controls=grown.controls)


def _as_measured(found: Outputs, stored: Outputs) -> Outputs:
    """Return the outputs' numbers without those that the stored result has not, and with those that could not be taken again."""
    names = ("elsewhere", "nearby", "afresh")
    values = {name: None if getattr(stored, name) is None else getattr(found, name) for name in names}
    if found.afresh is None:
        values["afresh"] = stored.afresh
    return msgspec.structs.replace(found, **values)


def settings_of(described: Mapping[str, Any]) -> AttackSettings | None:
    """Return the settings with this description (``exitbench.models.spec.describe``); None where there are none such."""
    try:
        region = described["region"]
        values = {name: described[name] for name in KNOBS}
        losses = [KNOBS["loss"].value(name) for name in KNOBS["loss"].choices]
        values["loss"] = next(loss for loss in losses if describe(loss) == described["loss"])
        found = AttackSettings(ThreatModel(region["norm"], region["eps"], region.get("grid")), **values)
    except (KeyError, TypeError, StopIteration, InvalidValue):
        return None
    return found if description(found) == described else None


def _differences(stored: TrustResult, found: TrustResult) -> Differences:
    """Yield what differs by more than rounding: name, what is stored, what was found."""
    if stored.samples != found.samples:
        yield "samples", stored.samples, found.samples
    yield from _sets("right", stored.right, found.right, len(found.samples))
    yield from _of_outputs(stored, found)
    yield from _of_gradients(stored, found)
    for name in ("path", "radii", "controls"):
        if (getattr(stored, name) is None) != (getattr(found, name) is None):
            yield name, getattr(stored, name), getattr(found, name)
            return
    yield from _of_ascents(stored, found)
    yield from _of_controls(stored, found)
    yield from _of_hidden(stored, found)
    yield from _of_search_model(stored, found)


def _of_outputs(stored: TrustResult, found: TrustResult) -> Differences:
    said, again = stored.outputs, found.outputs
    # Until version 2, fewer batches were tried; until version 3, images of the evaluation alone.
    limits = {"repeated": outputs.ROUNDING}
    if stored.version >= GROWN:
        limits["batched"] = outputs.ROUNDING
    if stored.version >= 4:
        limits |= {"elsewhere": outputs.ROUNDING, "nearby": outputs.JUMP, "afresh": outputs.ROUNDING}
    for name, limit in limits.items():
        one, other = getattr(said, name), getattr(again, name)
        if one is not None and other is not None and (one > limit) != (other > limit):
            yield name, one, other
    for name in ("probabilities", "log_probabilities"):
        if getattr(said, name) != getattr(again, name):
            yield name, getattr(said, name), getattr(again, name)


def _of_gradients(stored: TrustResult, found: TrustResult) -> Differences:
    said, again = stored.gradients, found.gradients
    if said.reachable != again.reachable:
        yield "reachable", said.reachable, again.reachable
    for name in ("zero", "zero_margin", "saturated"):
        one, other = getattr(said, name), getattr(again, name)
        if len(one) != len(other) or not all(map(_close, one, other)):
            yield name, one, other


def _of_ascents(stored: TrustResult, found: TrustResult) -> Differences:
    said, again, n = stored.path, found.path, len(found.right)
    if said is not None and again is not None:
        if (said.keep, said.steps) != (again.keep, again.steps):
            yield "path", (said.keep, said.steps), (again.keep, again.steps)
        for name in ("on_path", "returned", "rising"):
            yield from _sets(name, getattr(said, name), getattr(again, name), n)
        # Where the loss no longer rises, all of the last values are equal but for rounding: any of them may be the best.
        rising = {*said.rising, *again.rising}
        yield from _sets("late", [k for k in said.late if k in rising], [k for k in again.late if k in rising], n)
        if not _close(said.switches, again.switches):
            yield "switches", said.switches, again.switches
    yield from _sets("soft rule", stored.soft_rule or (), found.soft_rule or (), n)
    if stored.radii is None or found.radii is None:
        return
    one, other = ((*each.radii, each.unbounded) for each in (stored.radii, found.radii))
    if [each.eps for each in one] != [each.eps for each in other]:
        yield "radii", [each.eps for each in one], [each.eps for each in other]
        return
    for a, b in zip(one, other, strict=True):
        yield from _sets(f"broken at {a.eps:.4g}", a.broken, b.broken, n)


def _of_controls(stored: TrustResult, found: TrustResult) -> Differences:
    said, again = stored.controls, found.controls
    if said is None or again is None:
        return
    if said.right is None or again.right is None:  # in version 1 on the first samples alone
        first = set(stored.samples)
        for name in ("noise", "search"):
            yield from _sets(name, getattr(said, name), [k for k in getattr(again, name) if k in first], len(first))
        return
    n = len(again.right)
    for name in ("right", "noise", "search", "gradients"):
        yield from _sets(name, getattr(said, name) or (), getattr(again, name) or (), n)
    if said.looks != again.looks:
        yield "looks", said.looks, again.looks


def _of_hidden(stored: TrustResult, found: TrustResult) -> Differences:
    said, again = stored.hidden, found.hidden
    if said is None or again is None:
        if said is not again and stored.version >= HIDDEN:
            yield "hidden", said, again
        return
    for name in hidden.SETS:
        yield from _sets(f"{name} (without gradients)", getattr(said, name), getattr(again, name), len(again.right))
    for name in ("sources", "looks"):
        if getattr(said, name) != getattr(again, name):
            yield name, getattr(said, name), getattr(again, name)


def _of_search_model(stored: TrustResult, found: TrustResult) -> Differences:
    said, again = stored.search_model, found.search_model
    if said.samples != again.samples:
        yield "samples of the search model", said.samples, again.samples
    if said.precision != again.precision:
        return
    limit = max(1, SAMPLES * again.samples)
    for name in ("changed_clean", "changed_adversarial"):
        if abs(getattr(said, name) - getattr(again, name)) > limit:
            yield name, getattr(said, name), getattr(again, name)


def _sets(name: str, said: Collection[int], again: Collection[int], n: int) -> Differences:
    if len(set(said) ^ set(again)) > max(1, SAMPLES * n) or len(set(said)) != len(said):
        yield name, said, again


def _close(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else abs(one - other) <= SHARE


def _flags(result: TrustResult, usual_eps: float, robust: set[int] | None) -> set[str]:
    """Return the names of the failures and warnings that a result raises."""
    samples = len(result.right)
    found = [*outputs.flags(result.outputs), *gradients.flags(result.gradients), *search_model.flags(result.search_model)]
    white_box: Sequence[int] | None = None
    if result.path is not None and result.radii is not None and result.soft_rule is not None:
        white_box = [*result.path.on_path, *result.soft_rule]
        found += path.flags(result.path, result.right, robust)
        found += radii.flags(result.radii, samples, usual_eps)
    if (numbers := result.controls) is not None:
        if numbers.right is not None:
            white_box, samples = numbers.gradients, len(numbers.right)
        found += controls.flags(numbers, white_box, samples, robust, numbers.looks)
    if result.hidden is not None:
        found += hidden.flags(result.hidden, robust)
    return {f"{flag.label} ({flag.level})" for flag in found if flag.level != "info"}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

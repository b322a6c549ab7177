"""Estimates the cost of an evaluation before it runs: passes measured in finished cells, times the duration of a pass."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.clean import Clean
from exitbench.models.spec import canonical_json, describe
from exitbench.runner.plan import Plan, PlannedCell
from exitbench.store.store import Store
from exitbench.timing.throughput import Throughput

_RULES = ("policy", "target")
"""Fields of a description that hold the deployed rule, where it is no number of an exit."""

_LOOKED_AT = 32
EXPECTED = "expected, nothing is measured"
"""Source of the passes of an attack that was never measured: its own ``expected_gradients``."""

JUDGED = 1.0
"""Forward passes per sample to re-score an attack's images."""


@dataclass(frozen=True)
class Passes:
    """The forward and backward passes per sample of an attack alone, and their source."""

    forwards: float
    backwards: float
    source: str


@dataclass(frozen=True)
class Row:
    """The remaining work of an attack.

    Attributes:
        name: Name in reports.
        samples: Number of samples still to be attacked.
        forwards, backwards: Passes per sample, without those of the attacks it starts from, which have their own rows.
        source: Where these figures come from.
    """

    name: str
    samples: int
    forwards: float
    backwards: float
    source: str

    def seconds(self, throughput: Throughput) -> float:
        """Return the expected duration in seconds, on one core or one GPU."""
        return self.samples * throughput.seconds(self.forwards, self.backwards)


def estimate(plan: Plan, weights: str, store: Store) -> list[Row]:
    """Estimate the missing cells of ``plan`` against the network with the digest ``weights``, attack by attack.

    The attacks that others start from run once per slice; a selection is derived from stored logits at no cost.
    """
    samples: dict[Attack, int] = defaultdict(int)
    judged: dict[Attack, int] = defaultdict(int)
    for cells in _by_slice(plan.cells):
        missing = [cell for cell in cells if not cell.done]
        needed = {attack for cell in missing if not isinstance(cell.attack, BestOf) for attack in _with_children(cell.attack)}
        for attack in needed:
            samples[attack] += len(cells[0].slice)
        for cell in missing:
            judged[cell.attack] += 0 if isinstance(cell.attack, BestOf) else len(cell.slice)
    known = Known(store, weights)
    names = {cell.attack: cell.name for cell in plan.cells}
    order = [*names, *(attack for attack in samples if attack not in names)]
    return [_row(attack, names, samples[attack], judged[attack], known) for attack in order if samples[attack]]


def _row(attack: Attack, names: Mapping[Attack, str], samples: int, judged: int, known: Known) -> Row:
    found = known.own(attack)
    name = names.get(attack, f"(start of others: {type(attack).__name__})")
    return Row(name, samples, found.forwards + JUDGED * judged / samples, found.backwards, found.source)


def _by_slice(cells: Iterable[PlannedCell]) -> Iterable[Sequence[PlannedCell]]:
    return (list(group) for _, group in groupby(cells, key=lambda cell: cell.slice.start))


def _with_children(attack: Attack) -> set[Attack]:
    return {attack}.union(*(_with_children(child) for child in attack.children))


class Known:
    """The passes measured in the finished cells of a store.

    An attack is looked up first on this network with the planned settings, then on this network with other radii or rules, then
    on other networks. If it has no finished cell, its own ``expected_gradients`` is used.

    Args:
        weights: Digest of the network.
    """

    def __init__(self, store: Store, weights: str) -> None:
        self._store, self._weights = store, weights
        self._stored: dict[str, list[tuple[str, str, str, Sequence[str]]]] = defaultdict(list)
        for record in store.runs():
            for attack in record.attacks:
                spec = canonical_json(attack.spec)
                self._stored[_form(attack.spec)].append((record.weights, spec, record.model, attack.keys))
        self._found: dict[Attack, Passes] = {}

    def own(self, attack: Attack) -> Passes:
        """Return the passes of an attack without those of its children, which stored cells include."""
        whole = self._whole(attack)
        if whole.source == EXPECTED:
            return whole
        children = [self._whole(child) for child in attack.children]
        forwards = whole.forwards - sum(child.forwards for child in children)
        backwards = whole.backwards - sum(child.backwards for child in children)
        return Passes(max(forwards, 0.0), max(backwards, 0.0), whole.source)

    def _whole(self, attack: Attack) -> Passes:
        if attack not in self._found:
            self._found[attack] = self._looked_up(attack)
        return self._found[attack]

    def _looked_up(self, attack: Attack) -> Passes:
        if isinstance(attack, Clean):
            return Passes(0.0, 0.0, "known")
        spec = canonical_json(describe(attack))
        stored = self._stored.get(_form(describe(attack)), [])
        same = [keys for weights, known, _, keys in stored if weights == self._weights and known == spec]
        alike = [keys for weights, _, _, keys in stored if weights == self._weights]
        names = sorted({model for weights, _, model, _ in stored if weights != self._weights})
        others = [keys for weights, _, _, keys in stored if weights != self._weights]
        tries = ((same, "this network"), (alike, "this network, other settings"), (others, ", ".join(names)))
        for found, where in tries:
            if (passes := self._mean(found, where)) is not None:
                return passes
        gradients = attack.expected_gradients
        return Passes(gradients + 1, gradients, EXPECTED)

    def _mean(self, keys: Sequence[Sequence[str]], where: str) -> Passes | None:
        """Return the mean passes over some of these cells, first samples first, or None if none is finished."""
        samples = forwards = backwards = 0
        for key in list(dict.fromkeys(key for each in keys for key in each))[:_LOOKED_AT]:
            if (cell := self._store.read(key, images=False)) is not None:
                samples += len(cell.indices)
                forwards, backwards = forwards + int(cell.passes[0]), backwards + int(cell.passes[1])
        return Passes(forwards / samples, backwards / samples, f"measured on {where}, n = {samples}") if samples else None


def _form(spec: Any) -> str:
    """Return what roughly determines an attack's duration: its description without radius, step size and deployed rule."""
    return json.dumps(_without(spec), sort_keys=True)


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {name: _without(each) for name, each in value.items() if name not in ("eps", "step_size", "costs")}
        return kept | {name: "rule" for name in _RULES if isinstance(value.get(name), Mapping)}
    return [_without(each) for each in value] if isinstance(value, list) else value

"""Compares two evaluations of the same samples: figures of both, their difference, its interval and its test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exitbench.errors import UserError
from exitbench.models.number_text import eps_text
from exitbench.models.spec import canonical_json
from exitbench.scoring.evaluation import Evaluation, Result
from exitbench.scoring.ranking import WORST
from exitbench.scoring.rows import TITLES, Row
from exitbench.stats.paired import mcnemar, mean_interval, newcombe
from exitbench.stats.proportions import wilson
from exitbench.store.identity import Identity
from exitbench.store.run_record import CLEAN

Interval = tuple[float, float]

AttackVariant = tuple[str, str, int | None]
"""The name of an attack, its settings, and the number of exits if the name has an exit."""

_OF_THE_NETWORK = ("policy", "costs", "exit", "target")
"""Fields of a spec that depend on the network; the exit is in the attack's name."""

_AT_ONE_EXIT: Mapping[tuple[str, str], Mapping[str, Any]] = {("AdaptiveAtOneExit", "2"): {"type": "PolicyAttack", "version": 5}}
"""The adaptive attack on a network with one exit, by type and version, and that on several exits which it is paired with: the
same attack on the deployed prediction, with the same budget."""

_OVER_EXITS = frozenset(("type", name) for name in ("Mean", "Max", "BestOf"))
"""Fields of attacks on several exits at once. At one exit they are all the attack on that exit, which is all a worst case has."""


@dataclass(frozen=True)
class Pair:
    """A row of a comparison; differences are B minus A.

    Attributes:
        name: Name of the row.
        n: Number of samples.
        a, b: Number of samples that A and B get right.
        only_a, only_b: Number of samples that only one gets right.
        share_a, share_b: Wilson's 95 % intervals.
        interval: 95 % interval of the difference of the shares (Newcombe's method 10).
        p: p-value of the two-sided exact McNemar test.
        mmacs: Mean cost of A and B; None for the worst case.
        mmacs_interval: 95 % interval of the difference of the mean costs, by the normal approximation.
    """

    name: str
    n: int
    a: int
    b: int
    only_a: int
    only_b: int
    share_a: Interval
    share_b: Interval
    interval: Interval
    p: float
    mmacs: Interval | None
    mmacs_interval: Interval | None

    @property
    def title(self) -> str:
        """The row's title."""
        return TITLES.get(self.name, self.name)

    @property
    def difference(self) -> float:
        """Share of B minus share of A."""
        return (self.b - self.a) / self.n


@dataclass(frozen=True, eq=False)
class Comparison:
    """A paired comparison of two evaluations.

    Attributes:
        a, b: The evaluations.
        pairs: Rows: clean, every attack of both, the worst case.
        apart: Names of attacks that only one has, or that were run with other settings.
    """

    a: Evaluation
    b: Evaluation
    pairs: tuple[Pair, ...]
    apart: tuple[str, ...]


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Pair two evaluations sample by sample.

    Attacks are paired by name and by how they were run, whatever the networks' exits and policies; where there are several
    seeds of one, the first is taken. The worst case of each is over the attacks that both faced, so that neither is
    ahead for having been attacked less.

    Raises:
        UserError: If they do not share samples and threat model, or have no attack in common.
    """
    if reasons := list(unpaired(a.record, b.record)):
        raise UserError(f"these are not paired: {'; '.join(reasons)}. Evaluate both on the same samples with `exitbench run`")
    attacks_a, attacks_b = by_variant(a), by_variant(b)
    common = [form for form in attacks_a if form in attacks_b]
    if not common and (attacks_a or attacks_b):
        raise UserError(
            f"they have no attack in common: {_names(attacks_a)} against {_names(attacks_b)}. "
            "Run the same on both with `exitbench run`"
        )
    pairs = [_pair(CLEAN, a, b, _row(a, a.clean), _row(b, b.clean))]
    pairs += [_pair(form[0], a, b, _row(a, attacks_a[form]), _row(b, attacks_b[form])) for form in common]
    if common:
        worst_a, worst_b = (_worst(each, [by[form] for form in common]) for each, by in ((a, attacks_a), (b, attacks_b)))
        pairs.append(_pair(WORST, a, b, worst_a, worst_b))
    apart = dict.fromkeys(form[0] for form in [*attacks_a, *attacks_b] if form not in common)
    return Comparison(a, b, tuple(pairs), tuple(apart))


def unpaired(a: Identity, b: Identity) -> Iterator[str]:
    """Yield the reasons why two run records do not share samples and threat model."""
    for name in ("dataset", "n", "norm"):
        if getattr(a, name) != getattr(b, name):
            yield f"{name} {getattr(a, name)} and {getattr(b, name)}"
    if a.eps != b.eps:
        yield f"eps {eps_text(a.eps)} and {eps_text(b.eps)}"
    if a.grid != b.grid:
        yield f"grid {a.grid or 'none'} and {b.grid or 'none'}"
    if a.data != b.data and (a.dataset, a.n) == (b.dataset, b.n):
        yield f"other images or labels (data {a.data[:12]} and {b.data[:12]}), as when networks take other image sizes"


def by_variant(evaluation: Evaluation) -> dict[AttackVariant, Result]:
    """Return the finished attacks by how they were run, whatever the network's exits and policy; of several seeds the first."""
    found: dict[AttackVariant, Result] = {}
    for attack in evaluation.attacks:
        # Exit 1 of three is not exit 1 of seven.
        exits = evaluation.record.n_exits if re.search(r"[:\[]\d", attack.name) else None
        found.setdefault((attack.name, _form(attack.spec), exits), attack)
    return found


def _form(spec: Any) -> str:
    """Return the settings of an attack in a form that does not depend on the number of exits."""
    return canonical_json(sorted({canonical_json([name, value]) for name, value in _leaves(spec, "")}))


def _leaves(spec: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(spec, Mapping):
        paired_as = _AT_ONE_EXIT.get((str(spec.get("type")), str(spec.get("version"))), {})
        for key, value in {**_in_every_network(spec), **paired_as}.items():
            if key not in _OF_THE_NETWORK:
                yield from _leaves(value, key)
    elif isinstance(spec, (list, tuple)):
        for value in spec:
            yield from _leaves(value, name)
    else:
        yield name, spec


def _in_every_network(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a worst case with those of its attacks that any number of exits has, and any other attack as it is."""
    attacks = spec.get("attacks")
    if spec.get("type") != "Cascade" or not isinstance(attacks, (list, tuple)):
        return spec
    return {**spec, "attacks": [each for each in attacks if not _OVER_EXITS & set(_leaves(each, ""))]}


def _names(attacks: Mapping[AttackVariant, Result]) -> str:
    return ", ".join(dict.fromkeys(name for name, _, _ in attacks)) or "none"


def _row(evaluation: Evaluation, result: Result) -> Row:
    return Row(evaluation.robust(result), result.exits)


def _worst(evaluation: Evaluation, attacks: list[Result]) -> Row:
    right = evaluation.clean.correct.copy()
    for attack in attacks:
        right &= attack.survived
    return Row(right, None)


def _pair(name: str, a: Evaluation, b: Evaluation, row_a: Row, row_b: Row) -> Pair:
    n, right_a, right_b = len(row_a.right), int(row_a.right.sum()), int(row_b.right.sum())
    only_a, only_b = int((row_a.right & ~row_b.right).sum()), int((~row_a.right & row_b.right).sum())
    mmacs = interval = None
    if row_a.exits is not None and row_b.exits is not None:
        costs = np.asarray(a.record.mmacs)[row_a.exits], np.asarray(b.record.mmacs)[row_b.exits]
        mmacs, interval = (float(costs[0].mean()), float(costs[1].mean())), mean_interval(costs[1] - costs[0])
    shares = wilson(right_a, n), wilson(right_b, n)
    difference = newcombe(row_a.right, row_b.right)
    return Pair(name, n, right_a, right_b, only_a, only_b, *shares, difference, mcnemar(only_a, only_b), mmacs, interval)

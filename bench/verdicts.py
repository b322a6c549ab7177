"""Verdicts: per sample, robust or not and what broke it, derived from stored logits alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.harness.cell import Cell
from bench.harness.plan import CLEAN
from bench.harness.store import Store
from bench.intervals import wilson
from bench.record import evaluation_key
from models.policies import Policy, deployed_logits
from models.policy_text import parse_policy
from models.spec import canonical_json

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """One attack on one model's samples.

    Attributes:
        name: as asked for.
        spec: the resolved attack.
        seed: of its noise.
        correct: ``(n,)`` the deployed prediction is right on the attack's image.
        exits: ``(n,)`` 0-based exit taken there.
        exit_accuracy: ``(K,)`` accuracy of each exit there.
        forwards, backwards: mean passes per sample.
        implementation: package and version, for attacks that are another package's.
    """

    name: str
    spec: Mapping[str, Any]
    seed: int
    correct: Bools
    exits: npt.NDArray[np.int64]
    exit_accuracy: tuple[float, ...]
    forwards: float
    backwards: float
    implementation: str | None


@dataclass(frozen=True)
class Evaluation:
    """All that is known of one model under one policy on the same n samples and threat model.

    Attributes:
        record: the run record (any of those that were merged; they agree in everything but attacks and seed).
        clean: the result of no attack.
        attacks: finished attacks, in order.
        unfinished: attacks without all their cells, by name, with the reason.
    """

    record: Mapping[str, Any]
    clean: Result
    attacks: tuple[Result, ...]
    unfinished: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.clean.correct)

    def robust(self, attack: Result) -> Bools:
        """``(n,)``: right on the clean image and on the attack's."""
        return self.clean.correct & attack.correct

    @property
    def worst(self) -> Bools:
        """``(n,)``: robust to every finished attack: the headline."""
        robust = self.clean.correct.copy()
        for attack in self.attacks:
            robust &= attack.correct
        return robust

    def strongest(self) -> Result | None:
        """The single attack that leaves the fewest robust; the first of equals."""
        return min(self.attacks, key=lambda attack: int(self.robust(attack).sum()), default=None)

    def broken_by(self) -> list[str | None]:
        """Per sample, the first attack that breaks it; ``none`` where the clean image is wrong, None where robust."""
        found: list[str | None] = [None if right else CLEAN for right in self.clean.correct]
        for attack in self.attacks:
            for row in np.flatnonzero(~attack.correct):
                found[row] = found[row] or attack.name
        return found

    def mean_cost(self, result: Result, per_exit: str = "mmacs") -> float:
        """Mean cost of the exits taken; ``per_exit`` is ``mmacs`` or ``mflops_paper``."""
        return float(np.asarray(self.record[per_exit])[result.exits].mean())

    def exit_counts(self, result: Result) -> list[int]:
        """How many samples take each exit."""
        counts = np.bincount(result.exits, minlength=len(self.record["mmacs"]))
        return [int(count) for count in counts]


def accuracy(correct: Bools) -> tuple[float, float, float]:
    """Share of true values and its Wilson 95 % interval."""
    successes, n = int(correct.sum()), len(correct)
    return successes / n, *wilson(successes, n)


def evaluations(store: Store) -> list[Evaluation]:
    """Every evaluation in the store with a finished clean pass, runs that differ in attacks or seed alone merged."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in store.runs():
        groups.setdefault(evaluation_key(record), []).append(record)
    found = [_evaluation(records, store) for _, records in sorted(groups.items())]
    return [evaluation for evaluation in found if evaluation is not None]


def _evaluation(records: Sequence[Mapping[str, Any]], store: Store) -> Evaluation | None:
    record = records[0]
    policy = parse_policy(record["policy"], len(record["mmacs"]), record["calibration"])
    results: dict[str, Result] = {}
    unfinished: dict[str, str] = {}
    for each in records:
        for attack in each["attacks"]:
            name = attack["name"]
            identity = canonical_json([name, attack["spec"], each["seed"]]) if name != CLEAN else CLEAN
            if identity in results:
                continue
            cells = [store.read(key) for key in attack["keys"]]
            if None in cells:
                unfinished[name] = _reason(attack["keys"], store)
            else:
                results[identity] = _result(attack, each["seed"], [c for c in cells if c], policy)
    clean = results.pop(CLEAN, None)
    if clean is None:
        return None
    return Evaluation(record, clean, tuple(results.values()), unfinished)


def _reason(keys: Iterable[str], store: Store) -> str:
    errors = [error["error"] for key in keys if (error := store.read_error(key))]
    return f"error: {errors[0]}" if errors else "not finished"


def _result(attack: Mapping[str, Any], seed: int, cells: Sequence[Cell], policy: Policy) -> Result:
    logits = torch.from_numpy(np.concatenate([cell.logits for cell in cells], axis=1))
    labels = torch.from_numpy(np.concatenate([cell.labels for cell in cells]))
    predicted, exits = deployed_logits(logits, policy)
    forwards, backwards = np.sum([cell.passes for cell in cells], axis=0) / len(labels)
    return Result(
        name=attack["name"],
        spec=attack["spec"],
        seed=seed,
        correct=(predicted.argmax(-1) == labels).numpy(),
        exits=exits.numpy(),
        exit_accuracy=tuple((logits.argmax(-1) == labels).double().mean(1).tolist()),
        forwards=float(forwards),
        backwards=float(backwards),
        implementation=cells[0].header["provenance"].get("implementation"),
    )

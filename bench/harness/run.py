"""Runs the missing cells of a plan: attack, certify, store."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.base import Attack
from attacks.best_of import BestOf
from attacks.clean import Clean
from attacks.noise import Noise
from attacks.regions import Ball
from bench.data.split import Batch
from bench.harness.cell import Cell
from bench.harness.certify import certify
from bench.harness.passes import Passes, counted
from bench.harness.plan import Plan, PlannedCell
from bench.harness.store import Cells
from bench.harness.victim import Victim
from models.early_exit import EarlyExitNet
from models.spec import describe

_log = logging.getLogger(__name__)

Candidates = dict[Attack, tuple[Tensor, Passes, float]]
"""Of one slice: what each attack proposed, the passes and the seconds it took."""


@dataclass(frozen=True)
class Outcome:
    """What became of a planned cell; ``error`` is None where it is stored."""

    cell: PlannedCell
    error: str | None


@dataclass(frozen=True)
class Started:
    """A planned cell is worked on."""

    cell: PlannedCell


class Runner:
    """Works off a plan against one victim.

    Args:
        victim: what is attacked.
        ball: the threat model that every candidate is certified against.
        seed: of the evaluation.
        dataset: its name, for the cells' headers.
        store: where cells go.
    """

    def __init__(self, victim: Victim, ball: Ball, seed: int, dataset: str, store: Cells) -> None:
        self.victim, self.ball, self.seed, self.dataset, self.store = victim, ball, seed, dataset, store

    def run(self, plan: Plan, on_start: Callable[[PlannedCell], None], on_outcome: Callable[[Outcome], None]) -> None:
        """Run every missing cell in order, telling when one starts and what became of it.

        An attack that raises, or proposes what cannot be certified, leaves an error and no cell; so do the
        selections that need it. An interrupt or a full disk goes through to the caller, with every
        finished cell kept.
        """
        for step in self.steps(plan):
            if isinstance(step, Outcome):
                on_outcome(step)
            else:
                on_start(step.cell)

    def steps(self, plan: Plan) -> Iterator[Started | Outcome]:
        """``run`` step by step, for those who hand results on."""
        candidates: Candidates = {}
        current: Batch | None = None
        cells: dict[Attack, str] = {}
        for planned in plan.cells:
            if planned.batch is not current:
                current, candidates, cells = planned.batch, {}, {}
            cells[planned.attack] = planned.key
            if planned.done:
                continue
            yield Started(planned)
            yield Outcome(planned, self._run(planned, candidates, cells))

    def _run(self, planned: PlannedCell, candidates: Candidates, cells: dict[Attack, str]) -> str | None:
        try:
            if isinstance(planned.attack, BestOf):
                cell = self._select(planned, planned.attack, [cells[child] for child in planned.attack.attacks])
            else:
                cell = self._attack(planned, candidates)
        except Exception as error:  # noqa: BLE001 - an attack is somebody's code: whatever it raises is its result
            _log.info("%s failed", planned.name, exc_info=True)
            message = f"{type(error).__name__}: {error}"
            self.store.write_error(planned.key, {"attack": planned.name, "spec": describe(planned.attack), "error": message})
            return message
        self.store.write(cell)
        return None

    def _attack(self, planned: PlannedCell, candidates: Candidates) -> Cell:
        device = next(self.victim.model.parameters()).device
        # Copies: what an attack does to its inputs must not reach the judge, nor the next attack.
        x, y = planned.batch.x.to(device, copy=True), planned.batch.y.to(device, copy=True)
        noise = Noise(self.seed, planned.batch.indices)
        x_adv, passes, seconds = propose(planned.attack, self.victim.twin, x, y, noise, candidates)
        self.victim.model.eval()
        certified = certify(self.victim.model, planned.batch.x.to(device), x_adv, self.ball, bounded=planned.attack.bounded)
        logits = certified.logits.cpu()
        broken = (logits.argmax(-1) != planned.batch.y).any(0).nonzero().flatten()
        kept = broken[:0] if isinstance(planned.attack, Clean) else broken
        return Cell(
            key=planned.key,
            header=self._header(planned, seconds),
            **_sample_arrays(planned.batch),
            logits=logits.numpy(),
            distances=certified.distances.cpu().numpy(),
            passes=np.array([passes.forwards, passes.backwards], dtype=np.int64),
            broken_rows=kept.numpy(),
            counterexamples=x_adv.cpu()[kept].numpy(),
        )

    def _select(self, planned: PlannedCell, selection: BestOf, children: Sequence[str]) -> Cell:
        """Derive a selection from its children's stored logits: no pass through the model at all."""
        found = [cell for cell in map(self.store.read, children) if cell is not None]
        if len(found) < len(children):
            raise RuntimeError("an attack that it selects from did not finish")
        choice = selection.choose([torch.from_numpy(cell.logits) for cell in found], planned.batch.y)
        seconds = sum(cell.header["provenance"]["seconds"] for cell in found)
        return select_cells(planned.key, self._header(planned, seconds), found, choice.numpy())

    def _header(self, planned: PlannedCell, seconds: float) -> dict[str, Any]:
        provenance = {
            "seconds": round(seconds, 3),
            "device": str(next(self.victim.model.parameters()).device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if planned.attack.implementation is not None:
            provenance["implementation"] = planned.attack.implementation
        return {
            "model": self.victim.name,
            "weights": self.victim.weights,
            "dataset": self.dataset,
            "attack": describe(planned.attack),
            "seed": self.seed,
            "provenance": provenance,
        }


def propose(
    attack: Attack, model: EarlyExitNet, x: Tensor, y: Tensor, noise: Noise, candidates: Candidates
) -> tuple[Tensor, Passes, float]:
    """An attack's candidate, all passes and seconds it took, reusing and extending the slice's ``candidates``.

    Passes and seconds are those of the attack on its own: a child computed earlier counts again, so that they do
    not depend on what was run before.
    """
    if attack not in candidates:
        children = [propose(child, model, x, y, noise, candidates) for child in attack.children]
        started = time.perf_counter()
        with counted(model) as own:
            x_adv = attack.propose(
                model, x.clone(), y.clone(), noise=noise, candidates=[candidate.clone() for candidate, _, _ in children]
            )
        seconds = time.perf_counter() - started + sum(child_seconds for _, _, child_seconds in children)
        candidates[attack] = (x_adv, sum((passes for _, passes, _ in children), own), seconds)
    return candidates[attack]


def select_cells(key: str, header: dict[str, Any], cells: Sequence[Cell], choice: np.ndarray[Any, np.dtype[np.int64]]) -> Cell:
    """The cell made of row ``b`` of ``cells[choice[b]]`` for every ``b``."""
    first = cells[0]
    rows = range(len(choice))
    images = [dict(zip(cell.broken_rows.tolist(), cell.counterexamples, strict=True)) for cell in cells]
    broken = [row for row in rows if row in images[choice[row]]]
    shape = (0, *first.counterexamples.shape[1:])
    return Cell(
        key=key,
        header=header,
        indices=first.indices,
        labels=first.labels,
        inputs=first.inputs,
        logits=np.stack([cells[choice[row]].logits[:, row] for row in rows], axis=1),
        distances=np.array([cells[choice[row]].distances[row] for row in rows], dtype=np.float32),
        passes=np.sum([cell.passes for cell in cells], axis=0),
        broken_rows=np.array(broken, dtype=np.int64),
        counterexamples=np.stack([images[choice[row]][row] for row in broken]) if broken else np.empty(shape, np.float32),
    )


def _sample_arrays(batch: Batch) -> dict[str, Any]:
    hashes = b"".join(bytes.fromhex(text) for text in batch.input_hashes())
    return {
        "indices": np.array(batch.indices, dtype=np.int64),
        "labels": batch.y.numpy(),
        "inputs": np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 32),
    }

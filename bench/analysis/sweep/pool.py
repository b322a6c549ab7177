"""Pools all stored images of a network on the same samples and threat model, and applies any policy to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from exitbench.models.field_types import Costs
from exitbench.models.policies import Policy, deployed_logits
from exitbench.scoring.cells import Misfit, RecordCells, leave_out
from exitbench.scoring.evaluation import Bools, Evaluation
from exitbench.store.cell import Cell
from exitbench.store.identity import Setting
from exitbench.store.run_record import CLEAN, RunRecord
from exitbench.store.store import Store


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Images:
    """The images of an attack, or the clean images.

    Attributes:
        rows: ``(M,)``, the sample that each belongs to.
        logits: ``(K, M, classes)``, logits of all exits.
        labels: ``(M,)``, labels.
        within: ``(M,)`` bool, whether the image lies in the ball of the threat model.
    """

    rows: npt.NDArray[np.int64]
    logits: Tensor
    labels: Tensor
    within: Bools

    def any_exit_wrong(self) -> Bools:
        """Whether each image lies in the ball and makes some exit wrong, taken or not, ``(M,)``."""
        return (self.logits.argmax(-1) != self.labels).any(0).numpy() & self.within


@dataclass(frozen=True, eq=False)
class RuleVerdicts:
    """The verdicts under one policy.

    Attributes:
        exits: ``(n,)``, the exit taken on the clean image (0-based).
        correct: ``(n,)`` bool, whether the clean image is classified right.
        worst: ``(n,)`` bool, whether the clean image and every stored image in the ball are; None without attacks.
    """

    exits: npt.NDArray[np.int64]
    correct: Bools
    worst: Bools | None


@dataclass(frozen=True, eq=False)
class Pool:
    """The stored images of a network, pooled over all policies that it was evaluated under.

    Attributes:
        record: A run record; all in the pool agree in the fields that a sweep reads.
        clean: The clean images.
        attacked: The images of all attacks, each cell once, including those of unfinished attacks.
        evaluations: One evaluation for each evaluated policy.
    """

    record: RunRecord
    clean: Images
    attacked: tuple[Images, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def mmacs(self) -> tuple[float, ...]:
        """Cost of each exit."""
        return self.record.mmacs

    def judge(self, policy: Policy) -> RuleVerdicts:
        """Apply a policy; an image in the ball counts whatever policy it was generated against.

        The worst case is an upper bound under every policy, and a looser one under policies that were not attacked.
        """
        predicted, exits = deployed_logits(self.clean.logits, policy)
        correct = (predicted.argmax(-1) == self.clean.labels).numpy()
        worst = correct.copy()
        for images in self.attacked:
            predicted, _ = deployed_logits(images.logits, policy)
            wrong = (predicted.argmax(-1) != images.labels).numpy() & images.within
            worst[images.rows[wrong]] = False
        return RuleVerdicts(exits.numpy(), correct, worst if self.attacked else None)

    def any_exit_robust(self) -> Bools:
        """Whether no stored image, clean ones included, makes any exit wrong, ``(n,)``: a floor for any policy's worst case."""
        robust = ~self.clean.any_exit_wrong()
        for images in self.attacked:
            robust[images.rows[images.any_exit_wrong()]] = False
        return robust


def same_samples(evaluations: Iterable[Evaluation]) -> list[list[Evaluation]]:
    """Group evaluations by weights, samples and threat model, whatever their policies."""
    groups: dict[tuple[Setting, Costs], list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(_key(evaluation.record), []).append(evaluation)
    return [groups[key] for key in sorted(groups)]


def pool_of(evaluations: Sequence[Evaluation], store: Store) -> Pool:
    """Read every cell of the evaluations, which must be one group of ``same_samples``."""
    record = evaluations[0].record
    records = [run for run in store.runs() if _key(run) == _key(record)]
    clean: list[Cell] = []
    attacked: list[Images] = []
    seen: set[str] = set()
    for run in records:
        stored = RecordCells(run, store)
        for attack in run.attacks:
            if seen.issuperset(attack.keys):
                continue
            try:
                cells = [cell for cell in stored.of(attack) if cell.key not in seen]
            except Misfit as misfit:
                leave_out(misfit, store)
                break
            seen.update(attack.keys)
            if attack.name == CLEAN:
                clean = clean if clean or len(cells) < len(attack.keys) else cells
            elif cells:
                attacked.append(_images(cells, record, attack.spec))
    return Pool(record, _images(clean, record, {}), tuple(attacked), tuple(evaluations))


def _key(record: RunRecord) -> tuple[Setting, Costs]:
    """The setting; and the costs, for records made before and after a change of how they are counted are not pooled."""
    return record.setting, record.mmacs


def _images(cells: Sequence[Cell], record: RunRecord, spec: Mapping[str, Any]) -> Images:
    return Images(
        rows=np.concatenate([cell.indices for cell in cells]),
        logits=torch.from_numpy(np.concatenate([cell.logits for cell in cells], axis=1)),
        labels=torch.from_numpy(np.concatenate([cell.labels for cell in cells])),
        within=np.concatenate([cell.within(record.norm, record.eps, spec) for cell in cells]),
    )

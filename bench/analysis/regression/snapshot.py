"""Snapshots: an evaluation reduced to what a gate compares: subject, settings, and a verdict per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.models.field_types import Costs, Seed
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.ranking import WORST
from exitbench.scoring.rows import Row, rows_of
from exitbench.store.identity import Identity
from exitbench.store.run_record import CLEAN, RunRecord


class SnapshotSubject(Identity, frozen=True, kw_only=True):
    """Who was measured on what: what identifies the evaluation, the cost of each exit (``mmacs``), and the noise's seed."""

    mmacs: Costs
    seed: Seed

    @property
    def n_exits(self) -> int:
        """How many exits the network has."""
        return len(self.mmacs)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One evaluation.

    Attributes:
        subject: who was measured on what.
        settings: how it was asked for: names of ``exitbench.runner.prepare.Request`` and ``attacks``, resolved.
        attacks: resolved spec of every attack asked for, by name.
        rows: ``none``, every finished attack asked for by its name, ``worst``.
        computed_with: library versions and devices.
    """

    subject: SnapshotSubject
    settings: Mapping[str, Any]
    attacks: Mapping[str, Any]
    rows: Mapping[str, Row]
    computed_with: str

    @property
    def title(self) -> str:
        """Model and weights, for headings."""
        return f"{self.subject.model} ({self.subject.training})"

    def costs(self, name: str) -> npt.NDArray[np.float64] | None:
        """Return the mmacs of each sample in a row, ``(n,)``, or None for the worst case."""
        exits = self.rows[name].exits
        return None if exits is None else np.asarray(self.subject.mmacs, dtype=np.float64)[exits]


def planned(record: RunRecord, settings: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot that a run record will give, without verdicts."""
    attacks = {each.name: each.spec for each in record.attacks if each.name != CLEAN and not each.component}
    subject = SnapshotSubject(**{name: getattr(record, name) for name in SnapshotSubject.__struct_fields__})
    return Snapshot(subject, settings, attacks, {}, "")


def measured(evaluation: Evaluation, settings: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot of an evaluation of one run record; unfinished attacks have no row.

    The worst case is over all attacks in the record, components of selections included.
    """
    plan = planned(evaluation.record, settings)
    rows = rows_of(evaluation)
    shown = {name: row for name, row in rows.items() if name in (CLEAN, WORST, *plan.attacks)}
    return Snapshot(plan.subject, settings, plan.attacks, shown, evaluation.computed_with())


def failures_of(evaluation: Evaluation) -> list[str]:
    """Return the trust checks that failed, with their messages."""
    return [f"{flag.label}: {flag.message}" for flag in evaluation.failures]


def unfinished_of(evaluation: Evaluation) -> list[str]:
    """Return the attacks, and trust checks, without a result, with the reason."""
    found = [f"{each.name}: {each.reason}" for each in evaluation.unfinished]
    return found if evaluation.checked else [*found, f"trust checks: {evaluation.probe_error or 'not run'}"]

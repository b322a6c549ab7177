"""Writes the run record of a planned evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from exitbench.data.cards import find_dataset
from exitbench.models.policy_text import policy_text
from exitbench.models.spec import description, digest
from exitbench.runner.probe_key import probe_key
from exitbench.store.run_record import AttackEntry, Requested, RunRecord
from exitbench.store.store import Store

if TYPE_CHECKING:  # reading records back takes no attack's code
    from exitbench.runner.plan import Plan, PlannedCell
    from exitbench.runner.prepare import Prepared


def write_record(prepared: Prepared, plan: Plan, seed: int, store: Store) -> RunRecord:
    """Store the record of an evaluation under the digest of its content: the same command gives the same file."""
    record = record_of(prepared, plan, seed)
    store.write_run(record)
    return record


def record_of(prepared: Prepared, plan: Plan, seed: int) -> RunRecord:
    """Return the record of an evaluation, which is known before any work."""
    target, split = prepared.target, prepared.split
    threat_model, costs = prepared.settings.region, target.costs
    dataset = find_dataset(split.dataset)
    card = dataset.card
    return RunRecord(
        model=target.name,
        training=target.training,
        weights=target.weights,
        source=target.source,
        policy=policy_text(target.policy),
        calibration=getattr(target.policy, "calibration", None),
        mmacs=tuple(costs.mmacs),
        mflops_paper=costs.mflops_paper,
        uncounted=costs.uncounted,
        mmacs_dense=tuple(costs.mmacs_dense) if costs.sparsity else None,
        sparsity=costs.sparsity or None,
        dataset=split.dataset,
        dataset_summary=card.summary,
        usual_eps=None if dataset.origin is None else card.eps[threat_model.norm],
        data=data_digest(plan),
        n=prepared.n,
        norm=threat_model.norm,
        eps=threat_model.eps,
        grid=threat_model.grid,
        seed=seed,
        note=prepared.note,
        trust=probe_key(prepared, seed),
        requested=msgspec.convert(prepared.asked, Requested) if prepared.asked else None,
        attacks=_attacks(plan),
    )


def data_digest(plan: Plan) -> str:
    """Return the SHA-256 (hex) over the input hashes of all samples, in order."""
    by_start = {cell.slice.start: cell.slice for cell in plan.cells}
    return digest([text for start in sorted(by_start) for text in by_start[start].inputs])


def _attacks(plan: Plan) -> tuple[AttackEntry, ...]:
    """Every attack in the order of the plan."""
    first: dict[str, PlannedCell] = {}
    keys: dict[str, list[str]] = {}
    for cell in plan.cells:
        first.setdefault(cell.name, cell)
        keys.setdefault(cell.name, []).append(cell.key)
    return tuple(
        AttackEntry(
            name=name,
            goal=cell.attack.goal,
            summary=cell.attack.summary,
            spec=description(cell.attack),
            component=cell.component,
            keys=tuple(keys[name]),
        )
        for name, cell in first.items()
    )

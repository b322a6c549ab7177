"""Writes the run record of an evaluation that has been prepared and planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from exitbench.data.cards import find_dataset
from exitbench.models.policy_text import policy_text
from exitbench.models.spec import describe, digest
from exitbench.runner.probe_key import probe_key
from exitbench.store.run_record import RECORD_SCHEMA
from exitbench.store.store import Store

if TYPE_CHECKING:  # reading records back takes no attack's code
    from exitbench.attacks.regions import ThreatModel
    from exitbench.models.cost import ExitCosts
    from exitbench.runner.plan import Plan
    from exitbench.runner.prepare import Prepared


def write_record(prepared: Prepared, plan: Plan, seed: int, store: Store) -> Mapping[str, Any]:
    """Store the record of an evaluation under the digest of its content: the same command, the same file."""
    record = record_of(prepared, plan, seed)
    store.write_run(record)
    return record


def record_of(prepared: Prepared, plan: Plan, seed: int) -> dict[str, Any]:
    """The record of an evaluation, known before any work."""
    target, split = prepared.target, prepared.split
    threat_model = prepared.settings.region
    return {
        "schema": RECORD_SCHEMA,
        "model": target.name,
        "training": target.training,
        "weights": target.weights,
        "source": target.source,
        "policy": policy_text(target.policy),
        "calibration": getattr(target.policy, "calibration", None),
        "mmacs": list(target.costs.mmacs),
        "mflops_paper": list(target.costs.mflops_paper),
        "dataset": split.dataset,
        "dataset_summary": find_dataset(split.dataset).card.summary,
        "data": data_digest(plan),
        "n": prepared.n,
        "norm": threat_model.norm,
        "eps": threat_model.eps,
        "seed": seed,
        "note": prepared.note,
        "trust": probe_key(prepared, seed),
        "asked": dict(prepared.asked),
        "attacks": _attacks(plan),
        **_pruned(target.costs),
        **_of_added(split.dataset, threat_model),
    }


def _pruned(costs: ExitCosts) -> dict[str, Any]:
    """What is said of a pruned network alone, so that the records of all others stay as they were before there were any."""
    return {"mmacs_dense": list(costs.mmacs_dense), "sparsity": costs.sparsity} if costs.sparsity else {}


def _of_added(dataset: str, threat_model: ThreatModel) -> dict[str, Any]:
    """What reports need of the card of an installed package's dataset, so that they can be written without the package."""
    found = find_dataset(dataset)
    return {} if found.origin is None else {"usual_eps": found.card.eps[threat_model.norm]}


def data_digest(plan: Plan) -> str:
    """SHA-256 (hex) over the inputs' hashes of all samples, in order."""
    by_start = {cell.slice.start: cell.slice for cell in plan.cells}
    return digest([text for start in sorted(by_start) for text in by_start[start].inputs])


def _attacks(plan: Plan) -> list[dict[str, Any]]:
    """Every attack in the order of the plan; ``component``: there for a selection's sake, not asked for by name."""
    attacks: dict[str, dict[str, Any]] = {}
    for cell in plan.cells:
        fresh = {"name": cell.name, "spec": describe(cell.attack), "component": cell.component, "keys": []}
        attacks.setdefault(cell.name, fresh)["keys"].append(cell.key)
    return list(attacks.values())

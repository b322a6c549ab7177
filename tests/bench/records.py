"""Run records and baselines to change a field of."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from exitbench.models.stored import Stored
from exitbench.store.run_record import AttackEntry, RunRecord
from exitbench.store.trust_result import Gradients, Outputs, SearchModelDifference, TrustResult

Kind = TypeVar("Kind", bound=Stored)


def record_of(**fields: Any) -> RunRecord:
    """A run record of two exits without cells, with fields of your own."""
    content = {
        **{"model": "toy", "training": "none", "weights": "0" * 64, "source": "a test", "policy": "exit:1", "calibration": None},
        **{"mmacs": (1.0, 2.0), "dataset": "digits", "dataset_summary": "made up", "data": "d" * 64, "n": 4},
        **{"norm": "Linf", "eps": 0.1, "seed": 0, "note": None, "attacks": ()},
        **fields,
    }
    return RunRecord(**{"mflops_paper": content["mmacs"], **content})


def entry_of(name: str, spec: dict[str, Any] | None = None, keys: tuple[str, ...] = ()) -> AttackEntry:
    """An attack of a run."""
    return AttackEntry(name=name, goal="error", summary="", spec=spec or {}, component=False, keys=keys)


def probe_of(key: str, **outputs: Any) -> TrustResult:
    """Trust checks that found nothing, on a network of one exit that is never right."""
    return TrustResult(
        key=key,
        version=1,
        seed=0,
        settings={},
        samples=(0,),
        right=(),
        outputs=Outputs(**{"repeated": 0.0, "batched": 0.0, "probabilities": (), "log_probabilities": (), **outputs}),
        gradients=Gradients(zero=(0.0,), zero_margin=(0.0,), saturated=(), reachable=(0,)),
        path=None,
        soft_rule=None,
        radii=None,
        controls=None,
        search_model=SearchModelDifference(difference=0.0, changed_clean=0, changed_adversarial=0, samples=1),
    )


def changed(stored: Kind, **fields: Any) -> Kind:
    """The same but for these fields."""
    return msgspec.structs.replace(stored, **fields)

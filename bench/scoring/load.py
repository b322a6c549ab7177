"""Reads evaluations from a store: it groups cells and probes, and computes the result of each attack."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from exitbench.data.known_inputs import are_known
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import canonical_json, digest
from exitbench.runner.probe_key import READABLE
from exitbench.scoring.cells import Misfit, RecordCells, leave_out
from exitbench.scoring.evaluation import Evaluation, Result, Unfinished
from exitbench.scoring.flags import flags_of
from exitbench.scoring.nearest import Nearest, nearest_of
from exitbench.scoring.search import Search
from exitbench.store.cell import Cell
from exitbench.store.certificate import Certificate, certificate_key
from exitbench.store.run_record import CLEAN, AttackEntry, RunRecord, evaluation_key
from exitbench.store.shown import Part, figures_alone
from exitbench.store.store import Store
from exitbench.store.trust_result import TrustResult
from exitbench.store.verification import cell_digest, evidence_digest, find_verification
from exitbench.timing.latency import latencies, latency_of

_log = logging.getLogger(__name__)


def evaluations(store: Store) -> list[Evaluation]:
    """Return all evaluations with a finished clean pass; runs that differ only in attacks, seed or note are merged."""
    groups: dict[str, list[RunRecord]] = {}
    for record in store.runs():
        groups.setdefault(evaluation_key(record), []).append(record)
    found = [evaluation_of(records, store) for _, records in sorted(groups.items())]
    measured = latencies(store.root)
    return [replace(each, latency=latency_of(each.record, measured)) for each in found if each is not None]


def evaluation_of(records: Sequence[RunRecord], store: Store) -> Evaluation | None:
    """Return the evaluation of these records, with their attacks only, or None without a finished clean pass.

    A record that lists cells of something else is left out and named in the log.
    """
    left = list(records)
    while left:
        try:
            return _evaluation(left, store)
        except Misfit as misfit:
            leave_out(misfit, store)
            left.remove(misfit.record)
    return None


def _evaluation(records: Sequence[RunRecord], store: Store) -> Evaluation | None:
    record = records[0]
    policy = parse_policy(record.policy, record.n_exits, record.calibration)
    results: dict[str, Result] = {}
    unfinished: dict[str, Unfinished] = {}
    survived = np.ones(record.n, dtype=np.bool_)
    any_wrong = np.zeros(record.n, dtype=np.bool_)
    nearest = Nearest.unknown(record.n)
    knows_data = True
    alone: dict[str, None] = {}
    digests: dict[str, str] = {}
    for each in records:
        stored = RecordCells(each, store)
        for attack in each.attacks:
            name = attack.name
            identity = _identity(attack, each) if name != CLEAN else CLEAN
            if identity in results or identity in unfinished:
                continue
            cells = stored.of(attack)
            digests.update((cell.key, cell_digest(cell)) for cell in cells)
            alone |= dict.fromkeys(figures_alone([Part(name, attack.spec, cells)]))
            nearest = _nearer(nearest, attack, each, cells, policy)
            if len(cells) == len(attack.keys) and _covers(attack.keys, cells, record.n):
                results[identity] = result_of(attack, each, cells, policy)
                knows_data = knows_data and (name != CLEAN or _knows_data(cells, each))
                continue
            unfinished[identity] = Unfinished(name, _reason(attack.keys, store), len(cells), _undefined(cells))
            for cell in cells:
                part = result_of(attack, each, [cell], policy)
                survived[cell.indices] &= part.survived
                any_wrong[cell.indices] |= part.any_exit_wrong
    clean = results.pop(CLEAN, None)
    if clean is None:
        return None
    seen = find_verification(store.root, evidence_digest(records, partial(store.read, images=False), digests)) if alone else None
    verified = not alone or seen is not None
    checks = (*_probes(records, store), _attacked_settings(records, results, store))
    found = Evaluation(record, clean, tuple(results.values()), tuple(unfinished.values()), survived, any_wrong, *checks)
    return replace(
        found,
        flags=flags_of(found),
        records=tuple(records),
        knows_data=knows_data,
        nearest=nearest,
        verified=verified,
        figures_alone=tuple(alone) if seen is None else seen.figures_alone,
        certificate=_certificate(found, store),
    )


def _nearer(nearest: Nearest, attack: AttackEntry, record: RunRecord, cells: Sequence[Cell], policy: Policy) -> Nearest:
    """Return the nearest images when those of an attack are counted in."""
    if not cells:
        return nearest
    logits, labels = _outputs(cells)
    rows = np.concatenate([cell.indices for cell in cells])
    within = np.concatenate([cell.within(record.norm, record.eps, attack.spec) for cell in cells])
    return nearest.or_nearer(nearest_of(logits, labels, policy, within, attack.name), rows)


def _outputs(cells: Sequence[Cell]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits ``(K, B, classes)`` and labels ``(B,)`` of cells."""
    logits = torch.from_numpy(np.concatenate([cell.logits for cell in cells], axis=1))
    return logits, torch.from_numpy(np.concatenate([cell.labels for cell in cells]))


def _certificate(evaluation: Evaluation, store: Store) -> Certificate | None:
    """Return what was proven of an evaluation, unless a stored image shows that it cannot be true."""
    found = store.read_certificate(certificate_key(evaluation.record))
    if found is None:
        return None
    broken = [i for i in found.proven.right if not evaluation.worst[i]]
    bounded = [evaluation.clean, *(attack for attack in evaluation.attacks if attack.within.all())]
    slower = [i for i, k in enumerate(found.proven.last) if any(each.exits[i] > k for each in bounded)]
    if not broken and not slower:
        return found
    what = f"sample {broken[0]} is broken" if broken else f"sample {slower[0]} takes a later exit"
    _log.error("the certificate of %s is wrong, %s by a stored image; it is left out", evaluation.record.model, what)
    return None


def _knows_data(cells: Sequence[Cell], record: RunRecord) -> bool:
    """Return whether the clean cells are of the samples that their record names, as far as these are known."""
    inputs = np.concatenate([cell.inputs for cell in cells])
    of_record = digest([row.tobytes().hex() for row in inputs]) == record.data
    return of_record and are_known(record.dataset, inputs, cells[0].counterexamples.shape[1:])


def _covers(keys: Sequence[str], cells: Sequence[Cell], n: int) -> bool:
    """Return whether cells hold the samples 0 to n - 1, each once, in order; slices of the same images may share a clean cell."""
    times, start = Counter(keys), 0
    for key, cell in zip(keys, cells, strict=True):
        stop = start + len(cell.indices)
        if times[key] == 1 and not np.array_equal(cell.indices, np.arange(start, stop)):
            return False
        start = stop
    return start == n


def _identity(attack: AttackEntry, record: RunRecord) -> str:
    """What runs of one evaluation share when they are of the same attack with the same noise."""
    return canonical_json([attack.name, attack.spec, record.seed])


def _probes(records: Sequence[RunRecord], store: Store) -> tuple[tuple[TrustResult, ...], str | None]:
    """Return the stored trust checks of all records, and the first error of those that failed; older records have none."""
    keys = dict.fromkeys(record.trust for record in records if record.trust is not None)
    found = [probe for key in keys if (probe := store.read_probe(key)) and probe.version in READABLE]
    newest = {_measured(probe): probe for probe in sorted(found, key=_extent)}
    errors = [error.error for key in keys if (error := store.read_error(key))]
    return tuple(probe for probe in found if newest[_measured(probe)] is probe), errors[0] if errors else None


def _extent(probe: TrustResult) -> tuple[int, int]:
    """Return the version of a probe, and how far its controls could grow: one of an earlier release may be of fewer samples."""
    return probe.version, 0 if probe.controls is None else probe.controls.looks


def _measured(probe: TrustResult) -> str:
    """What a probe is of; one of an older version, or that grew less, is replaced by another of the same."""
    return canonical_json([probe.settings, probe.seed, probe.samples])


def _attacked_settings(records: Sequence[RunRecord], results: Mapping[str, Result], store: Store) -> frozenset[str]:
    found = set()
    for record in records:
        probe = store.read_probe(record.trust) if record.trust is not None else None
        named = {attack.name: _identity(attack, record) for attack in record.attacks}
        n_exits = record.n_exits
        wanted = [f"single:{k}" for k in range(1, n_exits + 1)]
        done = [results[named[name]] for name in wanted if named.get(name) in results]
        if probe and len(done) == len(wanted) and all(result.within.all() for result in done):
            found.add(canonical_json(probe.settings))
    return frozenset(found)


def _undefined(cells: Sequence[Cell]) -> int:
    """Return the number of images in cells that the plain model has no finite logits on."""
    return search_of([cell.header["provenance"] for cell in cells]).undefined


def _reason(keys: Iterable[str], store: Store) -> str:
    errors = [error.error for key in keys if (error := store.read_error(key))]
    return f"error: {errors[0]}" if errors else "not finished"


def result_of(attack: AttackEntry, record: RunRecord, cells: Sequence[Cell], policy: Policy) -> Result:
    """Compute the result of an attack under ``policy`` from its cells.

    Args:
        attack: Its entry in the run record.
        record: The run record.
        cells: Its cells, in the order of their samples.
        policy: The deployed rule.
    """
    logits, labels = _outputs(cells)
    predicted, exits = deployed_logits(logits, policy)
    forwards, backwards = np.sum([cell.passes for cell in cells], axis=0) / len(labels)
    distances = np.concatenate([cell.distances for cell in cells])
    within = np.concatenate([cell.within(record.norm, record.eps, attack.spec) for cell in cells])
    provenance = [cell.header["provenance"] for cell in cells]
    implementations = {each["implementation"] for each in provenance if "implementation" in each}
    return Result(
        name=attack.name,
        goal=attack.goal,
        summary=attack.summary,
        spec=attack.spec,
        seed=record.seed,
        correct=(predicted.argmax(-1) == labels).numpy(),
        any_exit_wrong=(logits.argmax(-1) != labels).any(0).numpy() & within,
        exits=exits.numpy(),
        exit_accuracy=tuple((logits.argmax(-1) == labels).double().mean(1).tolist()),
        within=within,
        distance=float(distances.mean()),
        forwards=float(forwards),
        backwards=float(backwards),
        seconds=sum(each["seconds"] for each in provenance) / len(labels),
        implementation=" and ".join(sorted(implementations)) or None,
        computed_with=frozenset(f"torch {p['torch']}, python {p['python']}, {p['device']}" for p in provenance),
        search=search_of(provenance),
    )


def search_of(provenance: Sequence[Mapping[str, Any]]) -> Search:
    """Return the search models recorded in the provenance of cells; older cells have none."""
    told = [each["search"] for each in provenance if "search" in each]
    return Search(
        on=frozenset(each["on"] for each in told),
        disagreements=sum(each["disagreements"] for each in told),
        again=sum(each["again"] for each in told),
        undefined=sum(each.get("undefined", 0) for each in told),
    )

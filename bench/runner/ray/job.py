"""The messages between driver and workers: plain data, independent of Ray."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import torch

from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.regions import ThreatModel
from exitbench.data.cards import find_dataset
from exitbench.models.factory import absolute_reference, is_reference
from exitbench.models.fingerprint import Fingerprint
from exitbench.models.own_code import own_sources
from exitbench.models.policies import Policy
from exitbench.models.policy_text import policy_text
from exitbench.models.search_model import FOLDED, SearchConfig
from exitbench.runner.plan import PlannedCell
from exitbench.runner.prepare import Prepared, Request
from exitbench.store.cell import SLICE
from exitbench.store.store import Store

_HANDED_ON = ("EXITBENCH_WEIGHTS",)


@dataclass(frozen=True)
class Job:
    """The part of the work that is the same for all shards of an evaluation.

    Attributes:
        request: what names the target, with nothing left to the machine that reads it but the files.
        model: the target's name.
        weights: its digest.
        policy: the deployed rule, digit by digit.
        form: of the search model that attacks search on, the same on every machine.
        threat_model: what the attacker may do.
        dataset: its name.
        seed: of the evaluation.
        threads: of torch, on a CPU.
        code, torch: digest of the code and torch's version, that results depend on.
        environment: variables that a machine is given where it has none of its own.
        fingerprint: of the network; None for a registered one.
    """

    request: Request
    model: str
    weights: str
    policy: Policy
    config: SearchConfig
    threat_model: ThreatModel
    dataset: str
    seed: int
    threads: int
    code: str
    torch: str
    environment: tuple[tuple[str, str], ...]
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True)
class Task:
    """A planned cell without its images; see ``PlannedCell``."""

    name: str
    attack: Attack
    key: str
    done: bool
    component: bool


@dataclass(frozen=True)
class Part:
    """The cells of the samples ``start..stop - 1``, in the order of the plan."""

    start: int
    stop: int
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Shard:
    """The work of one Ray task.

    Attributes:
        parts: The parts, in order.
        stored: Files of finished cells that selections among the missing ones need, by key.
        stack: Largest number of slices to run as one batch.
    """

    parts: tuple[Part, ...]
    stored: Mapping[str, bytes]
    stack: int


def job_of(request: Request, prepared: Prepared, seed: int, threads: int, device: str) -> Job:
    """Return the job of an evaluation that was prepared on this machine from ``request``.

    Args:
        request: The request.
        prepared: The resolved request.
        seed: Seed of the evaluation.
        threads: Torch threads in each worker.
        device: Device of the workers, ``cpu`` or ``cuda``.
    """
    target = prepared.target
    own = request.weights is not None or is_reference(request.model)
    asked = replace(
        request,
        model=absolute_reference(request.model),
        data=request.data.absolute(),
        dataset=find_dataset(prepared.split.dataset).reference or prepared.split.dataset,
        training=request.training if own else target.training,
        weights=None if request.weights is None else request.weights.absolute(),
        policy=policy_text(target.policy),
        n=min(SLICE, prepared.n),
        device=device,
    )
    return Job(
        request=asked,
        model=target.name,
        weights=target.weights,
        fingerprint=target.fingerprint,
        policy=target.policy,
        config=_search_config(prepared, device),
        threat_model=prepared.settings.region,
        dataset=prepared.split.dataset,
        seed=seed,
        threads=threads,
        code=code_digest(),
        torch=torch.__version__,
        environment=tuple((name, os.environ[name]) for name in _HANDED_ON if name in os.environ),
    )


def _search_config(prepared: Prepared, device: str) -> SearchConfig:
    """Return the fastest configuration on this machine if workers are alike; never compiled, which takes each worker minutes."""
    config = prepared.target.used_config
    here = next(prepared.target.model.parameters()).device.type
    if prepared.precision == "auto" and here != device:
        return FOLDED
    return replace(config, compiled=False)


def code_digest() -> str:
    """Return the SHA-256 (hex) of all code of exitbench that a cell's content depends on."""
    found = hashlib.sha256()
    for name, path in own_sources().items():
        found.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def shards(cells: Iterable[PlannedCell], slices: int) -> Iterator[list[PlannedCell]]:
    """Yield the cells of ``slices`` slices at a time, on demand; slices without missing cells are left out."""
    taken: list[list[PlannedCell]] = []
    for _, group in groupby(cells, key=lambda cell: cell.slice.start):
        together = list(group)
        if any(not cell.done for cell in together):
            taken.append(together)
        if len(taken) == slices:
            yield [cell for each in taken for cell in each]
            taken = []
    if taken:
        yield [cell for each in taken for cell in each]


def shard_of(cells: Iterable[PlannedCell], left: Mapping[str, PlannedCell], store: Store, stack: int = 1) -> Shard:
    """Return the shard that computes those of ``cells`` that are in ``left`` (by key)."""
    parts = []
    stored: dict[str, bytes] = {}
    for _, group in groupby(cells, key=lambda cell: cell.slice.start):
        together = list(group)
        keys = {cell.attack: cell.key for cell in together}
        for cell in together:
            if cell.key in left and isinstance(cell.attack, BestOf):
                for key in (keys[child] for child in cell.attack.attacks):
                    if key not in left and (raw := store.read_bytes(key)) is not None:
                        stored[key] = raw
        tasks = tuple(Task(cell.name, cell.attack, cell.key, cell.key not in left, cell.component) for cell in together)
        parts.append(Part(together[0].slice.start, together[0].slice.stop, tasks))
    return Shard(tuple(parts), stored, stack)

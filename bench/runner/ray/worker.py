"""The worker: it loads the target once per process, checks that it is the driver's, and runs shards."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch

from exitbench.errors import UserError
from exitbench.models.fingerprint import is_of
from exitbench.runner.answers import Answer, CellStarted, Held
from exitbench.runner.batching import cells_ahead, stack_size
from exitbench.runner.plan import Plan, PlannedCell, Slice
from exitbench.runner.prepare import Prepared, prepare
from exitbench.runner.ray.job import Job, Part, Shard, code_digest
from exitbench.runner.runner import Runner, Started
from exitbench.store.cell import cell_key
from exitbench.target.target import Target


class WorkerMismatchError(UserError):
    """A machine has other code, weights or data than the driver; the message says which machine and what differs."""


def work(job: Job, shard: Shard) -> Iterator[Answer]:
    """Run a shard and yield every cell as soon as it is finished.

    Raises:
        WorkerMismatchError: If this machine has other code, weights or data than the driver, or lacks them.
    """
    for name, value in job.environment:
        os.environ.setdefault(name, value)
    torch.set_num_threads(job.threads)
    ready = _ready(job)
    cells = [cell for part in shard.parts for cell in _planned(job, ready, part)]
    held = Held(shard.stored)
    device = next(ready.target.model.parameters()).device
    stack = min(stack_size(ready.target.search_model, ready.split.shape, device), shard.stack)
    ahead = cells_ahead(stack, device)
    runner = Runner(ready.target, job.threat_model, job.seed, job.dataset, held, stack, ahead=ahead)
    for step in runner.steps(Plan(tuple(cells), ())):
        yield CellStarted(step.cell.key) if isinstance(step, Started) else held.answer(step.cell.key)


@lru_cache(maxsize=1)
def _ready(job: Job) -> Prepared:
    """Load the target and its data, once per process."""
    here = socket.gethostname()
    if job.code != code_digest():
        raise WorkerMismatchError(
            f"{here} runs other code than the driver; install the same version of exitbench on every machine"
        )
    if job.torch != torch.__version__:
        raise WorkerMismatchError(
            f"{here} has torch {torch.__version__}, the driver {job.torch}; install the same on every machine"
        )
    try:
        prepared = prepare(job.request)
    except UserError as error:
        raise WorkerMismatchError(f"{here} cannot load what is evaluated: {error}") from error
    target = prepared.target
    if target.name != job.model or not _is_meant(target, job):
        raise WorkerMismatchError(
            f"{here} has other weights of {job.model}: digest {target.weights[:12]}, the driver's {job.weights[:12]}; "
            "copy the driver's to the same path on every machine"
        )
    return replace(prepared, target=replace(target, weights=job.weights, policy=job.policy, search_config=job.config))


def _is_meant(target: Target, job: Job) -> bool:
    """Return whether a network is the driver's: of the same weights, or of the same code and tensors, computing the same."""
    if target.fingerprint is None or job.fingerprint is None:
        return target.weights == job.weights
    return is_of(target.weights, job.weights) and target.fingerprint.agrees(job.fingerprint)


def _planned(job: Job, ready: Prepared, part: Part) -> Iterator[PlannedCell]:
    """Yield the cells of a part with its images.

    Raises:
        WorkerMismatchError: If the images are not those that the keys were made from.
    """
    batch = ready.split.batch(part.start, part.stop)
    samples = Slice(ready.split, part.start, part.stop, tuple(batch.input_hashes()))
    for task in part.tasks:
        if cell_key(job.weights, samples.inputs, task.attack, job.seed) != task.key:
            raise WorkerMismatchError(
                f"{socket.gethostname()} has other images: {job.dataset} {part.start}-{part.stop - 1} ({ready.split.source}) "
                "differ from the driver's; copy the driver's data to the same path on every machine"
            )
        yield PlannedCell(task.name, task.attack, task.key, samples, task.done, task.component)

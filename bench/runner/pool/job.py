"""What a worker process of the pool is sent: the target once, then cells with their images."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

from exitbench.attacks.regions import ThreatModel
from exitbench.data.split import Batch
from exitbench.runner.plan import PlannedCell, Slice
from exitbench.runner.prepare import Prepared
from exitbench.target.target import Target

_KNOWN = frozenset({"exitbench", "torch", "numpy", "builtins", "collections", "pathlib", "functools", "types", "copyreg"})
"""Packages whose code another process has as it is here."""


@dataclass(frozen=True)
class PoolJob:
    """What is the same for all cells of an evaluation.

    Attributes:
        target: The target, with the configuration of the search model.
        threat_model: The threat model.
        dataset: Name of the dataset.
        seed: Seed of the evaluation.
        threads: Torch's threads in each process.
    """

    target: Target
    threat_model: ThreatModel
    dataset: str
    seed: int
    threads: int


@dataclass(frozen=True, eq=False)
class SentImages:
    """The images of one slice."""

    samples: Batch

    def batch(self, start: int, stop: int) -> Batch:
        """Return all of them."""
        return self.samples


def job_of(prepared: Prepared, seed: int, threads: int) -> PoolJob:
    """Return the job of a prepared evaluation; networks compiled by ``torch.compile`` are not compiled in every process."""
    target = prepared.target
    config = replace(target.used_config, compiled=False)
    sent = replace(target, search_config=config, unused=None)
    return PoolJob(sent, prepared.settings.region, prepared.split.dataset, seed, threads)


def with_images(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Return cells whose slices hold their images."""
    parts = {cell.slice: _held(cell.slice) for cell in cells}
    return [replace(cell, slice=parts[cell.slice]) for cell in cells]


def _held(part: Slice) -> Slice:
    return Slice(SentImages(part.batch()), part.start, part.stop, part.inputs)


def can_be_sent(value: object) -> bool:
    """Return whether another process has the same when it is sent ``value``: all code in it is exitbench's or torch's."""
    try:
        _KnownPickler(io.BytesIO()).dump(value)
    except Exception:  # noqa: BLE001 - objects of others may raise anything when they are pickled
        return False
    return True


class _KnownPickler(pickle.Pickler):
    """A pickler that refuses classes and functions from elsewhere."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)) and (obj.__module__ or "").partition(".")[0] not in _KNOWN:
            raise pickle.PicklingError(f"{obj.__module__} is not ours")
        return NotImplemented

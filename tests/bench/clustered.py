"""A small evaluation for clusters, and attacks that do to their worker what clusters do to workers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.noise import Noise
from exitbench.attacks.presets import expand
from exitbench.models.early_exit import EarlyExitNet
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.plan import Plan, PlannedCell, Slice, with_components
from exitbench.runner.prepare import Prepared, Request, prepare
from exitbench.runner.ray.job import Job, job_of
from exitbench.runner.runner import Runner
from exitbench.store.cell import SLICE, cell_key
from exitbench.store.store import Store

N = 70
NAMES = ("single", "average", "max_average", "average_max")


def ready(data: Path, n: int = N) -> tuple[Prepared, Job]:
    """The shipped digits network, as this process and as workers are told of it."""
    request = Request("rdi_smallcnn", data, dataset="digits", n=n, knobs={"steps": 2}, device="cpu")
    prepared = prepare(request)
    return prepared, job_of(request, prepared, seed=0, threads=1, device="cpu")


def named(prepared: Prepared, names: Sequence[str] = NAMES) -> dict[str, Attack]:
    """Attacks by name, with the components of selections."""
    target = prepared.target
    attacks, _ = expand(names, target.deployment, prepared.settings)
    return with_components(attacks, target.deployment, prepared.settings)


def plan_of(prepared: Prepared, store: Store, attacks: Mapping[str, Attack]) -> Plan:
    """Any attacks on the first samples."""
    cells = []
    for batch in prepared.samples.slices(SLICE):
        samples = Slice(prepared.split, batch.indices[0], batch.indices[-1] + 1, tuple(batch.input_hashes()))
        for name, attack in attacks.items():
            key = cell_key(prepared.target.weights, samples.inputs, attack, 0)
            cells.append(PlannedCell(name, attack, key, samples, store.has(key), False))
    return Plan(tuple(cells), ())


def locally(prepared: Prepared, store: Store, attacks: Mapping[str, Attack]) -> list[Outcome]:
    """What this process makes of it."""
    outcomes: list[Outcome] = []
    runner = Runner(prepared.target, prepared.settings.region, 0, prepared.split.dataset, store)
    runner.run(plan_of(prepared, store, attacks), lambda _: None, outcomes.append)
    return outcomes


def contents(store: Store) -> dict[str, object]:
    """All cells, to the last bit of every number that is no clock's, and all errors."""
    found: dict[str, object] = {}
    for path in sorted((store.root / "cells").rglob("*.npz")):
        cell = store.read(path.stem)
        assert cell is not None
        arrays = (cell.indices, cell.labels, cell.inputs, cell.logits, cell.distances, cell.passes)
        images = (cell.broken_rows, cell.counterexamples)
        provenance = {name: value for name, value in cell.header["provenance"].items() if name not in ("seconds", "time")}
        found[path.stem] = (
            [(array.dtype.str, array.shape, array.tobytes()) for array in (*arrays, *images)],
            {**cell.header, "provenance": provenance},
        )
    for path in sorted((store.root / "errors").glob("*.json")):
        found[path.name] = path.read_text()
    return found


@dataclass(frozen=True)
class Kills(Attack):
    """Kills its process on the slice that holds ``sample``: on the first try, or on all; proposes the clean images."""

    marker: str
    sample: int
    always: bool = False

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        marker = Path(self.marker)
        if self.sample in noise.samples and (self.always or not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x


@dataclass(frozen=True)
class Raises(Attack):
    """Raises on the slice that holds ``sample``."""

    sample: int

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        if self.sample in noise.samples:
            raise RuntimeError("it raised")
        return x


@dataclass(frozen=True)
class Slow(Attack):
    """Says whose process it is in, and takes a moment; darkens the images by ``number`` hundredths."""

    folder: str
    number: int
    run: int = 0

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        (Path(self.folder) / str(os.getpid())).touch()
        time.sleep(0.05)
        return x * (1 - 0.01 * self.number)


def kill_some(folder: Path, kills: int, until: float, longest: float = 0.3) -> int:
    """Kill processes that ``Slow`` runs in, after random times of up to ``longest`` seconds each; how many were."""
    moments = random.Random(0)  # noqa: S311 - not for cryptography
    killed = 0
    while killed < kills and time.monotonic() < until:
        time.sleep(moments.uniform(0.05, longest))
        for path in sorted(folder.iterdir()):
            path.unlink()
            try:
                os.kill(int(path.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed += 1
            break
    return killed

"""Several processes of one machine give the results of one, to the last bit, whatever happens to them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from exitbench.attacks.autoattack import AutoAttack
from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.noise import Noise
from exitbench.cli.engine import chosen_engine, pool_engine
from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import ChangedOutputs
from exitbench.runner.cell_writer import Outcome
from exitbench.runner.pool import runner as pool_runner
from exitbench.runner.pool import size
from exitbench.runner.pool.child import Child
from exitbench.runner.pool.job import can_be_sent, job_of
from exitbench.runner.pool.runner import PoolRunner
from exitbench.runner.pool.size import pool_size
from exitbench.runner.pool.tasks import tasks
from exitbench.runner.pool.worker import serve
from exitbench.store.store import Store
from tests.bench.clustered import Raises, contents, locally, named, plan_of, ready


@dataclass(frozen=True)
class Dear(Attack):
    """Is given out first, and proposes the clean images."""

    @property
    def expected_gradients(self) -> float:
        return 1e6

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        return x


@dataclass(frozen=True)
class KillsWorker(Dear):
    """Kills a process of the pool other than the first, once."""

    marker: str

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        if multiprocessing.parent_process() is not None and 0 in noise.samples and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x


@dataclass(frozen=True)
class Logs(Dear):
    """Writes a line to the log."""

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        logging.getLogger("exitbench.attacks.logs").info("looked at %d", len(x))
        return x


@dataclass(frozen=True)
class Changes(Dear):
    """Finds a network that has changed."""

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        raise ChangedOutputs("3 exits, then 2")


class ThreadChild(Child):
    """A worker in a thread of this process, which takes no seconds to start."""

    def __init__(self, job: bytes) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._job = job
        self._thread = threading.Thread(target=serve, args=(theirs,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._connection.close()
        self._thread.join()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What is evaluated: three slices; one thread, as in the workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ready(tmp_path_factory.mktemp("no data"))[0]
    torch.set_num_threads(threads)


@pytest.fixture
def in_threads(monkeypatch):
    """Workers are threads; what they change in this process is undone."""
    monkeypatch.setattr(pool_runner, "Child", ThreadChild)
    logger = logging.getLogger("exitbench")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.level, logger.propagate, logger.handlers[:] = before


@dataclass
class Ran:
    """A pool that ran attacks, its store, outcomes, and what it told."""

    runner: PoolRunner
    store: Store
    outcomes: list[Outcome]
    told: list[str]


def run(prepared, folder, attacks, on_outcome=None, processes=2, until=None) -> Ran:
    """Run attacks in a pool; this process takes part when ``until`` holds, else when the others have done all."""
    store, outcomes, told = Store(folder), [], []
    runner = PoolRunner(job_of(prepared, 0, 1), store, processes, told.append)
    plan = plan_of(prepared, store, attacks)
    with runner.begun(plan):
        ended = time.monotonic() + 120
        while not (until() if until else not runner._busy) and time.monotonic() < ended:
            time.sleep(0.01)
        runner.run(plan, lambda _: None, on_outcome or outcomes.append)
    return Ran(runner, store, outcomes, told)


def test_processes_one_of_them_killed_give_the_results_of_one_to_the_last_bit(prepared, tmp_path):
    marker = tmp_path / "killed"
    attacks = {**named(prepared), "kills": KillsWorker(str(marker)), "raises": Raises(40)}
    found = tmp_path / "pool" / "cells"
    ran = run(prepared, tmp_path / "pool", attacks, processes=3, until=lambda: marker.exists() and any(found.rglob("*.npz")))
    locally(prepared, local := Store(tmp_path / "local"), attacks)
    assert contents(ran.store) == contents(local)
    assert set(Counter(outcome.cell.key for outcome in ran.outcomes).values()) == {1}
    assert len(ran.outcomes) == 3 * len(attacks)
    assert [outcome.error for outcome in ran.outcomes if outcome.error] == ["RuntimeError: it raised"]
    (line,) = ran.told
    assert line == "a process of attacks was lost (killed by signal 9); its 1 cells go on in another"


def test_the_other_processes_begin_before_this_one_takes_part(prepared, in_threads, tmp_path):
    attacks = {**named(prepared), "raises": Raises(40)}
    ran = run(prepared, tmp_path / "pool", attacks)
    locally(prepared, local := Store(tmp_path / "local"), attacks)
    assert contents(ran.store) == contents(local) and len(ran.outcomes) == 3 * len(attacks)
    chosen = [name for name, attack in attacks.items() if isinstance(attack, BestOf)]
    assert [outcome.cell.name for outcome in ran.outcomes[-3 * len(chosen) :]] == 3 * chosen
    assert not ran.told

    # Of one selection and one of its parts nothing is left: the other parts are read from the store.
    for cell in plan_of(prepared, ran.store, attacks).cells:
        if cell.name in (*chosen, "single:2"):
            (ran.store.root / "cells" / cell.key[:2] / f"{cell.key}.npz").unlink()
    again = run(prepared, tmp_path / "pool", attacks)
    assert len(again.outcomes) == 3 * (len(chosen) + 1) + 1 and contents(again.store) == contents(local)


def test_lines_of_a_worker_stand_in_the_log(prepared, in_threads, tmp_path):
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("exitbench.attacks.logs")
    logger.addHandler(kept := Kept())
    run(replace(prepared, n=32), tmp_path, {"logs": Logs()})
    logger.removeHandler(kept)
    assert "looked at 32" in lines


def test_an_interrupt_keeps_what_is_finished_and_the_next_run_goes_on(prepared, in_threads, tmp_path):
    attacks, told = named(prepared), []

    def interrupt(outcome: Outcome) -> None:
        told.append(outcome)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path / "pool", attacks, interrupt, until=lambda: True)
    kept = len(contents(Store(tmp_path / "pool")))
    assert 3 <= kept < 3 * len(attacks)
    ran = run(prepared, tmp_path / "pool", attacks)
    locally(prepared, local := Store(tmp_path / "local"), attacks)
    assert contents(ran.store) == contents(local) and len(ran.outcomes) == 3 * len(attacks) - kept


def test_what_ends_a_run_in_one_process_ends_it_in_several(prepared, in_threads, tmp_path, monkeypatch):
    with pytest.raises(ChangedOutputs, match="3 exits, then 2"):
        run(prepared, tmp_path / "changed", {**named(prepared, ["single:1"]), "changes": Changes()})

    def full(_self: Store, _key: str, _raw: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        run(prepared, tmp_path / "full", named(prepared, ["single"]))
    assert not list((tmp_path / "full").rglob("*.npz"))


def test_a_process_that_cannot_be_started_leaves_the_work_to_this_one(prepared, tmp_path, monkeypatch):
    def refuse(_job: bytes) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(pool_runner, "Child", refuse)
    ran = run(replace(prepared, n=32), tmp_path, named(prepared, ["single"]))
    assert ran.told == ["no further process could be started (OSError: no more processes); 1 are used"]
    assert len(contents(ran.store)) == len(ran.outcomes) == len(named(prepared, ["single"]))


def test_tasks_hold_every_missing_cell_once_the_longest_first(prepared, tmp_path):
    region = prepared.settings.region
    attacks = {**named(prepared), "autoattack": AutoAttack(region, prepared.target.policy), "dear": Dear()}
    cells = plan_of(replace(prepared, n=160), Store(tmp_path), attacks).cells
    cells = [replace(cell, done=cell.name == "single:2") for cell in cells]
    found = tasks(cells)
    given = Counter(cell.key for task in found for cell in task.cells)
    assert given == Counter(cell.key for cell in cells if not cell.done and not isinstance(cell.attack, BestOf))
    of_attack = [[cell.slice.start for cell in task.cells] for task in found if task.cells[0].name == "autoattack"]
    assert of_attack == [[0, 32, 64, 96], [128]]
    first = [task for task in found if task.cells[0].slice.start < 128]
    assert first == found[: len(first)] and [task.work for task in first] == sorted((task.work for task in first), reverse=True)
    pairs = [[cell.name for cell in task.cells] for task in found if task.cells[0].name == "single:1"]
    assert pairs == 5 * [["single:1", "average_max[2]"]]


def test_processes_are_as_many_as_there_is_work_and_code_for(prepared, tmp_path, monkeypatch):
    plan = plan_of(prepared, Store(tmp_path), named(prepared))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert pool_size(prepared, plan) == 1 and pool_size(prepared, plan, 3) == 3
    monkeypatch.setattr(size, "WORTH", 1.0)
    assert pool_size(prepared, plan) == 2 and pool_size(prepared, plan, 1) == 1
    assert pool_size(prepared, plan, 1000) == len(tasks(plan.cells))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert pool_size(prepared, plan) == 1
    foreign = plan_of(prepared, Store(tmp_path), {**named(prepared), "of a test": Dear()})
    assert pool_size(prepared, foreign, 2) == 1
    assert can_be_sent(prepared.target) and not can_be_sent(Dear()) and not can_be_sent(lambda: 0)
    assert pickle.loads(pickle.dumps(job_of(prepared, 0, 1))).target.weights == prepared.target.weights


def test_the_command_says_in_how_many_processes_it_attacks(prepared, tmp_path):
    class Said:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def print(self, line: str, **_options: object) -> None:
            self.lines.append(line)

    store = Store(tmp_path)
    plan = plan_of(prepared, store, named(prepared))
    engine = pool_engine(prepared, plan, 0, store, said := Said(), 2)
    assert engine is not None and engine.build(prepared).processes == 2 and engine.threads == 1
    assert said.lines == ["attacks run in 2 processes; torch's threads in each: 1"]
    assert pool_engine(prepared, plan, 0, store, said, 1) is None
    asked = {"engine": "ray", "workers": 2}
    with pytest.raises(UserError, match="--workers goes with --engine local"):
        chosen_engine(asked, None, prepared, plan, 0, store, said)

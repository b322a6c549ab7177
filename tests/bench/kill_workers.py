"""Kills workers of a Ray at random moments, and compares the results with an unbroken run here, to the last bit.

Too long for the tests, where three are killed: every kill costs a new worker, which imports torch. Run it from a checkout with
the test packages installed::

    python -m tests.bench.kill_workers --kills 50
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import ray
import torch

from exitbench.runner.cell_writer import Outcome
from exitbench.runner.ray import driver
from exitbench.runner.ray.connect import Resources
from exitbench.runner.ray.driver import RayRunner
from exitbench.store.store import Store
from tests.bench.clustered import Slow, contents, kill_some, locally, plan_of, ready
from tests.toys import ROOT

WORKERS = 2
SAMPLES = 128


def survives(kills: int, cells: int, minutes: float, folder: Path) -> str:
    """What became of a run of ``cells`` attacks on each slice of ``SAMPLES`` images, while workers were killed.

    Raises:
        AssertionError: a result was lost, counted twice or changed, or too few workers could be killed.
    """
    pids = folder / "pids"
    pids.mkdir()
    prepared, job = ready(folder / "no data", SAMPLES)
    attacks = {f"slow {i}": Slow(str(pids), i % 20, i) for i in range(cells)}
    outcomes: list[Outcome] = []
    told: list[str] = []
    store, local = Store(folder / "ray"), Store(folder / "local")
    # Workers are killed faster than some finish a cell; that this becomes an error is another test's.
    driver.LOSSES = kills + 1
    killed: list[int] = []
    until = time.monotonic() + 60 * minutes
    killer = threading.Thread(target=lambda: killed.append(kill_some(pids, kills, until, longest=1.0)))
    killer.start()
    runner = RayRunner(ray, job, store, Resources(), 1, told.append)
    runner.run(plan_of(replace(prepared, n=SAMPLES), store, attacks), lambda _: None, outcomes.append)
    killer.join()
    locally(prepared, local, attacks)
    counted = Counter(outcome.cell.key for outcome in outcomes)
    assert killed == [kills], f"{killed[0]} of {kills} workers could be killed while there was work; give it more --cells"
    assert not any(outcome.error for outcome in outcomes) and set(counted.values()) == {1}
    assert contents(store) == contents(local) and len(counted) == len(contents(local))
    return f"{kills} workers killed, {len(told)} losses told: {len(counted)} cells, each once, all as unbroken, to the last bit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cells", type=int, default=300, help="attacks on each of the four slices")
    parser.add_argument("--minutes", type=float, default=30, help="after which no worker is killed any more")
    asked = parser.parse_args()
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="FATAL", object_store_memory=10**8)
    try:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(survives(asked.kills, asked.cells, asked.minutes, Path(folder)) + "\n")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()

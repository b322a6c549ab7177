"""What may happen to a run: kills, full disks, folders that cannot be written, other processes, clocks, and models that raise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from exitbench.models import whole_file
from exitbench.models.whole_file import sweep, write_whole
from exitbench.runner.record import write_record
from exitbench.runner.runner import Runner
from exitbench.store.store import Store
from tests import processes
from tests.bench.evaluated import NET, evaluate, plan_of, prepared
from tests.bench.killed import results
from tests.bench.records import record_of
from tests.toys import ROOT

pytestmark = pytest.mark.long

KILLS, TOGETHER = 50, 3


def test_runs_killed_at_50_random_moments_resume_to_the_same_results_and_two_at_once_are_one(tmp_path):
    command = [sys.executable, "-m", "tests.bench.killed", str(tmp_path), str(KILLS), str(TOGETHER)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert (counted["resumed"], counted["together"]) == (KILLS, TOGETHER)
    assert counted["hit"] >= KILLS / 4, "most kills must find a run alive"


class _Filesystem:
    """A small filesystem of its own in memory; with the rights to mount one."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def remount(self, options: str) -> None:
        self._mount("-o", f"remount,{options}")

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(self.folder)], check=True, capture_output=True)

    def close(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB."""
    try:
        disk = _Filesystem(tmp_path / "disk", "200k")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk takes the right to mount one ({error})")
    yield disk
    disk.close()


def bench(*arguments: str) -> tuple[int, str]:
    done = processes.run(*arguments, cwd=ROOT)
    return done.returncode, " ".join(done.stderr.split())


def test_a_full_disk_keeps_what_is_finished_and_a_larger_one_goes_on(small_disk, tmp_path):
    run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single", "--n", "64", "--steps", "2"]
    code, err = bench(*run, "--results", str(small_disk.folder / "r"))
    assert code == 2 and "could not be written (No space left on device)" in err and "Traceback" not in err
    cells = sorted(small_disk.folder.rglob("*.npz"))
    small_disk.remount("size=20m")
    assert not list(small_disk.folder.rglob(".partial-*"))
    code, err = bench(*run, "--results", str(small_disk.folder / "r"))
    assert code == 0 and f"{len(cells)} done before" in err, err


def test_a_folder_that_may_only_be_read_is_noticed_before_any_work(small_disk):
    small_disk.remount("ro")
    code, err = bench(
        "run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "single", "--results", str(small_disk.folder)
    )
    assert code == 2 and "results cannot be written to" in err and "choose another with --results" in err


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_clocks_that_change_change_no_result(tmp_path, monkeypatch, jump):
    real = time.time
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (jump if next(ticks) % 2 else 0))
    evaluate(tmp_path / "odd")
    monkeypatch.undo()
    evaluate(tmp_path / "whole")
    assert results(tmp_path / "odd") == results(tmp_path / "whole")


def test_a_file_swept_away_under_its_writer_is_written_again(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def swept(handle):
        real(handle)
        if not calls:
            calls.append(handle)
            monkeypatch.setattr(whole_file.time, "time", lambda: 1e12)
            sweep(tmp_path)

    monkeypatch.setattr(os, "fsync", swept)
    write_whole(tmp_path / "cell", b"content")
    assert calls and (tmp_path / "cell").read_bytes() == b"content"


@pytest.mark.parametrize("raises", [RuntimeError("it raised"), MemoryError(), torch.OutOfMemoryError("out of memory")])
def test_a_model_that_raises_on_one_batch_loses_that_batch_alone(tmp_path, raises):
    ready = prepared()
    marked = ready.split.batch(32, 33).x

    def strike(_module, inputs, _output):
        if any(torch.equal(image, marked[0]) for image in inputs[0]):
            raise raises

    store = Store(tmp_path / "store")
    plan = plan_of(ready, store, ("single", "average"))
    write_record(ready, plan, 0, store)
    outcomes = []
    handle = NET.register_forward_hook(strike)
    try:
        Runner(ready.target, ready.settings.region, 0, "digits", store).run(plan, lambda _cell: None, outcomes.append)
    finally:
        handle.remove()
    struck = [outcome for outcome in outcomes if outcome.error]
    assert {outcome.cell.slice.start for outcome in struck} == {32}
    assert all(type(raises).__name__ in outcome.error for outcome in struck)
    again, _ = evaluate(tmp_path / "store", ("single", "average"))
    assert len(again) == len(struck) and not any(outcome.error for outcome in again)
    evaluate(tmp_path / "whole", ("single", "average"))
    assert results(tmp_path / "store") == results(tmp_path / "whole")


def test_the_store_deleted_under_a_run_is_an_error_and_no_crash(tmp_path):
    store = Store(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    store.write_run(record_of())
    assert list(store.runs()) == [record_of()]

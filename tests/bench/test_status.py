"""How far runs are, told from files alone: while they live, when they are killed, and when they end."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys

import pytest
from filelock import lock_descriptor, unlock_descriptor

from exitbench.attacks.pgd import PGD
from exitbench.cli.main import main
from exitbench.store import heartbeat as heartbeat_module
from exitbench.store.heartbeat import RunMonitor, heartbeats
from exitbench.store.status import statuses
from exitbench.store.store import Store
from tests.bench.evaluated import evaluate
from tests.toys import ROOT

NAMES = ("single", "average")


@pytest.fixture
def store(tmp_path):
    """A finished evaluation of 3 slices and 5 attacks, the clean pass included."""
    evaluate(tmp_path / "store", NAMES)
    return tmp_path / "store"


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """The command line on that folder: exit code, what was printed, and what was complained of."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments), "--results", str(tmp_path)])
        with pytest.raises(SystemExit) as left:
            main()
        return (left.value.code or 0, *capsys.readouterr())

    return run


def only(store):
    (status,), damaged = statuses(store)
    assert not damaged
    return status


def test_a_finished_run_is_finished(store):
    status = only(store)
    assert (status.state, status.done, status.cells) == ("finished", 15, 15)
    names = ["none", "single:1", "single:2", "single:3", "average"]
    assert status.last and {attack.name: attack.done for attack in status.attacks} == dict.fromkeys(names, 3)


def test_a_run_with_missing_cells_is_stopped(store):
    next((store / "cells").glob("*/*.npz")).unlink()
    assert (only(store).state, only(store).done) == ("stopped", 14)


def test_a_living_run_tells_where_it_is(store):
    next((store / "cells").glob("*/*.npz")).unlink()
    run = only(store).run
    with RunMonitor(store, run, cells=4, work=8.0) as shown:
        shown.working_on("average on 0-31")
        assert only(store).state == "running" and only(store).heartbeat.left_s is None
        shown.done("average on 0-31", 2.0, None)
        shown.done("single:1 on 0-31", 2.0, "it raised")
        heartbeat = only(store).heartbeat
        assert (heartbeat.finished, heartbeat.failed, heartbeat.cells, heartbeat.pid) == (1, 1, 4, os.getpid())
        assert heartbeat.left_s == pytest.approx(heartbeat.elapsed_s, abs=0.2), "half of the work is done"
    assert only(store).heartbeat is None and only(store).state == "stopped"


KILLED = """
import os, signal, sys
from pathlib import Path
from exitbench.store.heartbeat import RunMonitor
with RunMonitor(Path(sys.argv[1]), sys.argv[2], cells=4, work=8.0) as shown:
    shown.working_on("average on 0-31")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(store, run):
    """A process that is killed as it works on the run."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(store), run], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_run_is_told_from_a_living_one_and_forgotten_by_the_next(store):
    next((store / "cells").glob("*/*.npz")).unlink()
    run = only(store).run
    killed(store, run)
    assert only(store).state == "killed while on average on 0-31"
    with RunMonitor(store, run, cells=1, work=1.0):
        assert [(heartbeat.pid, lives) for heartbeat, lives in heartbeats(store)] == [(os.getpid(), True)]
    assert list(heartbeats(store)) == []


def test_who_looks_is_not_taken_for_a_living_run(store, monkeypatch):
    killed(store, only(store).run)
    with next((store / "live").iterdir()).open("r+") as other:
        assert lock_descriptor(other.fileno(), blocking=False)
        assert [lives for _, lives in heartbeats(store)] == [True]
        monkeypatch.setattr(heartbeat_module.time, "sleep", lambda _: unlock_descriptor(other.fileno()))
        assert [lives for _, lives in heartbeats(store)] == [False]


def test_where_files_cannot_be_locked_no_run_is_pronounced_dead(store, monkeypatch):
    def refuse(*_arguments, **_keywords):
        raise OSError(errno.ENOSYS, "no locks here")

    next((store / "cells").glob("*/*.npz")).unlink()
    monkeypatch.setattr(heartbeat_module, "lock_descriptor", refuse)
    with RunMonitor(store, only(store).run, cells=1, work=1.0) as shown:
        shown.done("average", 1.0, None)
        assert only(store).lives is None and only(store).heartbeat.finished == 1
    assert "average: finished" in next((store / "logs").iterdir()).read_text()


def test_a_run_of_another_machine_is_not_pronounced_dead(store, monkeypatch):
    next((store / "cells").glob("*/*.npz")).unlink()
    killed(store, only(store).run)
    monkeypatch.setattr(heartbeat_module.socket, "gethostname", lambda: "elsewhere")
    assert only(store).lives is None and only(store).state.startswith("on ") and "last heartbeat" in only(store).state


def test_errors_are_told(tmp_path, monkeypatch):
    def broken(*_arguments, **_keywords):
        raise RuntimeError("it raised")

    monkeypatch.setattr(PGD, "generate", broken)
    evaluate(tmp_path / "store", ("average",))
    status = only(tmp_path / "store")
    assert status.state == "ended, errors in 1 attacks"
    assert status.attacks[-1].error == "RuntimeError: it raised" and status.attacks[-1].done == 0


def test_the_log_rotates_and_says_what_was_done(store, monkeypatch):
    monkeypatch.setattr(heartbeat_module, "_LOG_BYTES", 2000)
    before = logging.getLogger("exitbench").handlers[:]
    with RunMonitor(store, "r" * 64, cells=200, work=200.0) as shown:
        for i in range(200):
            shown.done(f"average on {i}", 1.0, None)
    files = sorted((store / "logs").iterdir())
    assert len(files) == 4 and all(path.stat().st_size <= 2000 for path in files)
    assert "average on 199: finished" in files[0].read_text() and "ended: all worked off" in files[0].read_text()
    assert logging.getLogger("exitbench").handlers == before


def test_what_the_log_adds_is_not_said(store, caplog):
    with RunMonitor(store, "r" * 64, cells=1, work=1.0) as shown:
        shown.done("average", 1.0, None)
        logging.getLogger("exitbench.anything").warning("to be said")
        logging.getLogger("another").warning("to be said as well")
    assert [record.getMessage() for record in caplog.records] == ["to be said", "to be said as well"]
    assert "average: finished" in (store / "logs" / f"{'r' * 64}.log").read_text()


def test_nothing_that_cannot_be_written_stops_a_run(store):
    for name in ("live", "logs"):
        (store / name).write_text("in the way")
    with RunMonitor(store, "r" * 64, cells=1, work=1.0) as shown:
        shown.working_on("average")
        shown.done("average", 1.0, None)


def test_the_command(store, bench):
    code, out, _ = bench("status")
    assert code == 0 and "15/15" in out and "finished" in out and "toy" in out
    run = only(store).run
    next((store / "cells").glob("*/*.npz")).unlink()
    with RunMonitor(store, run, cells=1, work=2.0) as shown:
        shown.working_on("average on 0-31")
        code, out, _ = bench("status", run[:6])
    assert code == 0 and "running, 14 of 15" in out and "on average on 0-31" in out and "single:1: " in out
    assert "1 cells to run" in out, "the end of the log"


def test_damaged_records_are_named_and_the_others_told(store, bench):
    (store / "runs" / "bad.json").write_text("{")
    (store / "runs" / "worse.json").write_text(json.dumps({"attacks": 3}))
    code, out, err = bench("status")
    assert code == 0 and "15/15" in out and "bad.json cannot be read" in err and "worse.json cannot be read" in err


@pytest.mark.parametrize(("arguments", "message"), [(["zzz"], "0 runs begin with 'zzz'"), ([""], "2 runs begin with ''")])
def test_a_run_must_be_one(store, bench, arguments, message):
    evaluate(store, ("max",))
    code, _, err = bench("status", *arguments)
    assert code == 2 and message in err


def test_without_a_store_it_says_so_and_makes_none(bench, tmp_path):
    code, _, err = bench("status")
    assert code == 2 and "there is no store" in err and not (tmp_path / "store").exists()
    Store(tmp_path / "store")
    assert bench("status")[1] == "no runs yet\n"

"""Reports are read and written as one step: none is written from a store as it was before another's were."""

from __future__ import annotations

import threading

import pytest

import exitbench
from exitbench.report import lock, write
from exitbench.report.lock import reports_locked
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.bench.evaluated import evaluate


def rows(results):
    (board,) = (results / "leaderboards").glob("*.csv")
    return len(board.read_text().splitlines()) - 1


def test_a_report_that_was_read_before_an_evaluation_ended_does_not_replace_its_report(tmp_path, monkeypatch):
    store = tmp_path / "store"
    evaluate(store, ("single:1",))
    read, go_on = threading.Event(), threading.Event()
    slow = threading.current_thread

    def reading(root):
        found = evaluations(root)
        if slow().name == "report":
            read.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr(write, "evaluations", reading)
    report = threading.Thread(target=write.rewrite_reports, args=(Store(store), tmp_path), name="report")
    report.start()
    assert read.wait(60)
    evaluate(store, ("single:2",))
    run = threading.Thread(target=write.rewrite_reports, args=(Store(store), tmp_path), name="run")
    run.start()
    run.join(0.5)
    assert run.is_alive(), "it waits for the report that has read"
    go_on.set()
    report.join(60)
    run.join(60)
    assert rows(tmp_path) == len(evaluations(Store(store))[0].attacks) + len(("none", "worst"))


def test_who_waits_is_told_and_gives_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "NOTICE_S", 0.05)
    monkeypatch.setattr(lock, "LIMIT_S", 0.05)
    with reports_locked(tmp_path), pytest.raises(OSError, match="has been writing its reports"), reports_locked(tmp_path):
        pass
    assert "waiting for another process" in caplog.text
    with reports_locked(tmp_path):
        pass


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch, caplog):
    def no_locks(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(lock.FileLock, "acquire", no_locks)
    with reports_locked(tmp_path):
        pass
    assert "has no locks" in caplog.text


def test_python_s_reports_take_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "NOTICE_S", 0.05)
    monkeypatch.setattr(lock, "LIMIT_S", 0.05)
    evaluate(tmp_path / "store", ("single:1",))
    with reports_locked(tmp_path), pytest.raises(OSError, match="has been writing"):
        exitbench.write_reports(tmp_path)
    assert exitbench.write_reports(tmp_path)

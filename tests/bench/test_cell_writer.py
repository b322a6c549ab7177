"""Cells are written beside the work on others: whole, in order, and reported when they are on disk."""

import contextlib
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from exitbench.runner.batching import cells_ahead, queue_done
from exitbench.runner.cell_writer import CellWriter
from exitbench.runner.runner import Runner
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.bench.evaluated import evaluate, plan_of, prepared

NAMES = ("single", "max_average")


class Kept:
    """A store that keeps what it is given, each after a permit, and fails at one."""

    def __init__(self, permits=100, fails_at=None):
        self.permits, self.fails_at = threading.Semaphore(permits), fails_at
        self.cells, self.errors = [], []

    def write(self, cell):
        self.permits.acquire()
        if cell == self.fails_at:
            raise OSError("No space left on device")
        self.cells.append(cell)

    def write_error(self, key, what):
        self.errors.append((key, what.error))


def planned(number):
    return SimpleNamespace(name=str(number), key=str(number), attack=prepared().settings)


def put(writer, numbers):
    for number in numbers:
        writer.put(planned(number), partial(int, number))


def names(outcomes):
    return [outcome.cell.name for outcome in outcomes]


def test_a_cell_is_reported_when_it_is_stored_and_not_before():
    store = Kept(permits=0)
    with CellWriter(store) as writer:
        put(writer, range(3))
        assert names(writer.finished(3)) == [] == store.cells
        store.permits.release(2)
        assert names(writer.finished(1)) == ["0", "1"] and store.cells == [0, 1]
        store.permits.release()
        assert names(writer.finished(0)) == ["2"]


def test_after_a_cell_that_cannot_be_written_none_is():
    store = Kept(fails_at=1)
    with CellWriter(store) as writer:
        put(writer, range(4))
        outcomes = writer.finished(0)
        assert next(outcomes).cell.name == "0"
        with pytest.raises(OSError, match="No space left"):
            next(outcomes)
        assert names(writer.finished(0)) == [] and store.cells == [0]


def test_a_cell_that_cannot_be_made_is_an_error_of_its_own_in_its_place():
    store = Kept()
    with CellWriter(store) as writer:
        writer.put(planned(0), lambda: 1 // 0)
        writer.fail(planned(1), ValueError("it is bad"))
        put(writer, [2])
        outcomes = list(writer.finished(0))
    assert [outcome.error and outcome.error.split(":")[0] for outcome in outcomes] == ["ZeroDivisionError", "ValueError", None]
    assert [key for key, _ in store.errors] == ["0", "1"] and store.cells == [2]


def test_leaving_finishes_what_was_put():
    store = Kept()
    with pytest.raises(KeyboardInterrupt), CellWriter(store) as writer:
        put(writer, range(5))
        raise KeyboardInterrupt
    assert store.cells == list(range(5))


def ran(folder, ahead, stack=1, strikes=None):
    """The outcomes of a toy run; ``strikes`` is called with each start."""
    ready, store, outcomes = prepared(), Store(folder), []
    runner = Runner(ready.target, ready.settings.region, 0, "digits", store, stack, ahead=ahead)
    with contextlib.suppress(KeyboardInterrupt):
        runner.run(plan_of(ready, store, NAMES), strikes or (lambda _: None), outcomes.append)
    return outcomes, store


@pytest.mark.parametrize("stack", [1, 2])
def test_a_run_that_writes_beside_its_work_gives_the_same_cells_in_the_same_order(stack, tmp_path):
    at_once, store = ran(tmp_path / "at once", 0, stack)
    later, other = ran(tmp_path / "later", 4, stack)
    assert names(later) == names(at_once) and not any(outcome.error for outcome in later)
    for outcome in at_once:
        one, two = store.read(outcome.cell.key), other.read(outcome.cell.key)
        assert (one.logits == two.logits).all() and (one.counterexamples == two.counterexamples).all()


def test_an_interrupt_loses_no_cell_that_was_finished_and_reports_them(tmp_path):
    started = []

    def strike(cell):
        started.append(cell)
        if len(started) == 6:
            raise KeyboardInterrupt

    outcomes, store = ran(tmp_path, 100, strikes=strike)
    cells = {path.stem for path in (tmp_path / "cells").rglob("*.npz")}
    assert len(cells) == 5 and {outcome.cell.key for outcome in outcomes} <= cells
    again, _ = evaluate(tmp_path, NAMES)
    assert not {outcome.cell.key for outcome in again} & cells
    assert len(list(evaluations(store))) == 1


def test_only_a_gpu_writes_beside_its_work():
    assert cells_ahead(8, torch.device("cpu")) == 0
    assert cells_ahead(8, torch.device("cuda")) == 16


def test_results_are_read_when_a_gpu_has_done_what_it_was_given_until_then(monkeypatch):
    events = []
    stream = SimpleNamespace(record_event=lambda: SimpleNamespace(synchronize=partial(events.append, "waited")))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    wait = queue_done(torch.device("cuda"))
    assert events == []
    wait()
    assert events == ["waited"]
    queue_done(torch.device("cpu"))()

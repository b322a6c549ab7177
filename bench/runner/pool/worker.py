"""A worker process of the pool: it computes the cells that it is sent, and stores nothing."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from typing import Any

import torch

from exitbench.models.error_text import first_line
from exitbench.runner.answers import Answer, CellStarted, Held
from exitbench.runner.batching import GATHERED
from exitbench.runner.plan import Plan, PlannedCell
from exitbench.runner.pool.job import PoolJob
from exitbench.runner.runner import Runner, Started


@dataclass(frozen=True)
class TaskDone:
    """All cells that were sent are answered."""


@dataclass(frozen=True)
class Raised:
    """Computing them raised an error that ends the run."""

    error: Exception


@dataclass(frozen=True)
class Logged:
    """A line for the log of the run."""

    record: logging.LogRecord


def serve(connection: Connection) -> None:
    """Compute the cells that arrive on ``connection`` until it is closed, or the process at its other end has ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    channel = _Channel(connection)
    logger = logging.getLogger("exitbench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler := _ToParent(channel))
    try:
        job: PoolJob = pickle.loads(connection.recv_bytes())
        torch.set_num_threads(job.threads)
        while True:
            channel.send(_done(job, pickle.loads(connection.recv_bytes()), channel))
    except (EOFError, OSError):
        return
    finally:
        logger.removeHandler(handler)


def _done(job: PoolJob, cells: list[PlannedCell], channel: _Channel) -> TaskDone | Raised:
    """Compute cells and send what is finished; return how it ended."""
    try:
        for answer in answers(job, cells):
            channel.send(answer)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - raised again by whoever sent the cells
        return Raised(_sendable(error))
    return TaskDone()


def answers(job: PoolJob, cells: list[PlannedCell]) -> Iterator[Answer]:
    """Compute cells, and yield each as soon as it is started and finished."""
    held = Held({})
    runner = Runner(job.target, job.threat_model, job.seed, job.dataset, held, gathered=GATHERED)
    for step in runner.steps(Plan(tuple(cells), ())):
        yield CellStarted(step.cell.key) if isinstance(step, Started) else held.answer(step.cell.key)


def _end_with_parent() -> None:
    """End at once when the parent does, even in the middle of an attack."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an error of somebody's code may take no part in pickling
        return RuntimeError(first_line(error))
    return error


class _Channel:
    """Sends whole messages from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, message: object) -> None:
        raw = pickle.dumps(message)
        with self._lock:
            self._connection.send_bytes(raw)


class _ToParent(QueueHandler):
    """Sends log records to the parent."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__(queue=None)  # type: ignore[arg-type]
        self._channel = channel

    def enqueue(self, record: Any) -> None:
        """Send a prepared record."""
        self._channel.send(Logged(record))

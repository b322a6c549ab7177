"""A worker process as its parent sees it."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from exitbench.runner.pool.worker import serve

LOST = (EOFError, ConnectionError)
"""What sending and receiving raise when the process has ended."""


class Child:
    """A worker process, which is started at once.

    Args:
        job: What it is sent first, pickled.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(self, job: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process in which torch has threads may hang
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="exitbench-worker", daemon=True)
        self._job: bytes | None = job
        with _terminal_signals_blocked():
            self._process.start()
        theirs.close()

    def send(self, message: object) -> None:
        """Send a message; the first is preceded by the job, once the process has got so far."""
        if self._job is not None:
            self._connection.send_bytes(self._job)
            self._job = None
        self._connection.send_bytes(pickle.dumps(message))

    def receive(self) -> object:
        """Wait for the next answer."""
        answer: object = pickle.loads(self._connection.recv_bytes())
        return answer

    def end(self) -> None:
        """Kill the process; answers that it has sent can still be received."""
        self._process.kill()

    def how_it_ended(self) -> str:
        """Wait for the end of the process, and return its signal or exit code in words."""
        self._process.join()
        code = self._process.exitcode or 0
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


@contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Have processes started meanwhile never receive Ctrl-C, or the closing of the terminal, which their parent handles."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

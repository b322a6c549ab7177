"""What ends a command from outside: Ctrl-C, the end of a batch job (SIGTERM), a terminal that is closed (SIGHUP)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


class Ending:
    """The signal that ended the command.

    Attributes:
        signal: Its number; that of SIGINT until another one arrives.
    """

    signal: int = signal.SIGINT

    @property
    def received(self) -> bool:
        """Whether it was another signal than SIGINT: whatever is raised afterwards comes of it."""
        return self.signal != signal.SIGINT

    @property
    def code(self) -> int:
        """The exit code, as a shell reports one that a signal has ended: 130, 143 or 129."""
        return 128 + self.signal

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Raise what Ctrl-C raises, so that what is finished is kept in the same ways."""
        self.signal = number
        raise KeyboardInterrupt


@contextmanager
def ending_signals() -> Iterator[Ending]:
    """Have SIGTERM and SIGHUP raise ``KeyboardInterrupt`` while the context lasts; one that is ignored, as by nohup, stays so."""
    ending, before = Ending(), {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, ending.receive)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restore SIGTERM's handler behind code that sets one of its own, as Ray does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)

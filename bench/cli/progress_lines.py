"""Progress as lines of text, for output that is not a terminal: the log of a CI job or of a batch queue, a pipe, a file."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from exitbench.cli.duration import duration
from exitbench.models.printable import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from exitbench.runner.cell_writer import Outcome
    from exitbench.runner.plan import PlannedCell

EVERY = 30.0
"""Seconds without a line after which one is printed."""

ENOUGH = 0.01
"""Share of the work from which on the time left is told: the first cells, of clean images, say nothing of an attack's time."""

Clock = Callable[[], float]


def is_live(console: Console) -> bool:
    """Return whether the console can redraw a line: it is a terminal, whatever ``FORCE_COLOR`` says of a pipe."""
    return console.is_interactive and console.file.isatty()


class ReminderLines:
    """Prints lines, and a reminder whenever none has been printed for ``EVERY`` seconds.

    Args:
        console: Where to print.
        clock: Seconds, from any origin.
    """

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._console = console
        self._last = clock()

    def say(self, text: str) -> None:
        """Print one line."""
        self._last = self.clock()
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def remind(self, text: Callable[[], str]) -> None:
        """Print ``text()`` if no line has been printed for ``EVERY`` seconds."""
        if self.clock() - self._last >= EVERY:
            self.say(text())

    @contextmanager
    def reminding(self, text: Callable[[], str], period: float = 1.0) -> Iterator[None]:
        """Call ``remind`` every ``period`` seconds for as long as the context lasts."""
        self._last, over = self.clock(), threading.Event()

        def remind_until_over() -> None:
            while not over.wait(period):
                self.remind(text)

        reminder = threading.Thread(target=remind_until_over, name="exitbench-progress", daemon=True)
        reminder.start()
        try:
            yield
        finally:
            over.set()
            reminder.join()


class AttackLines:
    """Prints a line for each attack whose cells are all finished, and says what is left.

    Args:
        lines: Where to print.
        cells: The cells to run.
    """

    def __init__(self, lines: ReminderLines, cells: Sequence[PlannedCell]) -> None:
        self._lines, self._begun = lines, lines.clock()
        self._cells = Counter(cell.name for cell in cells)
        self._left, self._failed = self._cells.copy(), Counter[str]()
        self._work, self._done = sum(cell.work for cell in cells), 0.0
        self._current = "starting"

    def started(self, cell: PlannedCell) -> None:
        """Take ``cell`` as the one that reminders name."""
        self._current = cell.text

    def finished(self, outcome: Outcome) -> None:
        """Count the cell as finished, and print a line if it is the last one of its attack."""
        name = outcome.cell.name
        self._left[name] -= 1
        self._failed[name] += outcome.error is not None
        self._done += outcome.cell.work
        if not self._left[name]:
            cells, failed = self._cells[name], self._failed[name]
            ended = f"{failed} of {cells} cells ended in errors" if failed else "done"
            self._lines.say(f"{name}: {ended}; {self._state()}")

    def reminder(self) -> str:
        """Return the cell in work and what is left, in one line."""
        return f"{self._current} ...; {self._state()}"

    def _state(self) -> str:
        finished = sum(not left for left in self._left.values())
        elapsed = self._lines.clock() - self._begun
        left = (
            f"about {duration(elapsed * max(0.0, self._work - self._done) / self._done)} left"
            if self._done >= ENOUGH * self._work and self._done
            else "time left not known yet"
        )
        share = 100 * self._done / self._work if self._work else 100.0
        return f"{finished} of {len(self._cells)} attacks, {share:.0f} %, {duration(elapsed)} so far, {left}"


class Status(Protocol):
    """Something whose text can be replaced, such as ``rich.status.Status``."""

    def update(self, text: str, /) -> None:
        """Show ``text`` from now on."""


class _StatusLines:
    def __init__(self, text: str, clock: Clock) -> None:
        self._text, self._clock, self._begun = text, clock, clock()

    def update(self, text: str, /) -> None:
        self._text = text

    def __call__(self) -> str:
        return f"{self._text} ...; {duration(self._clock() - self._begun)} so far"


@contextmanager
def working(console: Console, text: str) -> Iterator[Status]:
    """Show for as long as the context lasts what is being done: a spinner on a terminal, elsewhere a line every ``EVERY`` s."""
    if is_live(console):
        with console.status(one_line(text)) as status:
            yield status
        return
    lines = ReminderLines(console)
    told = _StatusLines(text, lines.clock)
    with lines.reminding(told):
        yield told

"""Shows the progress of an evaluation in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from exitbench.cli.progress_lines import ENOUGH, AttackLines, ReminderLines, is_live, working
from exitbench.models.printable import one_line

if TYPE_CHECKING:
    from exitbench.runner.cell_writer import Outcome
    from exitbench.runner.plan import Plan, PlannedCell
    from exitbench.runner.prepare import Prepared


class TimeLeft(TimeRemainingColumn):
    """Shows the time left once enough of the work is done to tell."""

    def render(self, task: Task) -> Text:
        if task.completed < ENOUGH * (task.total or 0):
            return Text("-:--:--", style="progress.remaining")
        return super().render(task)


class TerminalDisplay:
    """A display of plan, search model, trust checks and progress on a console (see ``exitbench.api.display.Display``).

    Args:
        console: The console.
        resumable: Whether the same command goes on after an interrupt.
    """

    def __init__(self, console: Console, *, resumable: bool = True) -> None:
        self.console, self.resumable = console, resumable
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._cells: Sequence[PlannedCell] = ()
        self._attacks: AttackLines | None = None

    def prepared(self, prepared: Prepared) -> None:
        if prepared.note:
            self.console.print(prepared.note, style="yellow", markup=False, highlight=False)

    def planned(self, plan: Plan) -> None:
        self._cells = plan.missing
        done = len(plan.cells) - len(plan.missing)
        left = f"{len(plan.missing)} to run" if plan.missing else "nothing left to do"
        self.console.print(
            f"plan: {len(plan.cells)} cells, {done} done before, {left} (a cell is one attack on up to 32 images)",
            highlight=False,
        )
        if plan.missing:
            states = ", ".join(f"{name} {done}/{total}" for name, (done, total) in plan.states().items())
            self.console.print(f"  done/all: {states}", markup=False, highlight=False)
        for skipped in plan.skipped:
            self.console.print(f"  skipped {skipped.name}: {skipped.reason}", markup=False, highlight=False)

    def choosing(self) -> AbstractContextManager[Any]:
        return working(self.console, "choosing the search model")

    def searching_on(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def checking(self) -> AbstractContextManager[Any]:
        return working(self.console, "trust checks")

    def check_failed(self, error: str) -> None:
        self.console.print(f"trust checks failed: {error}", style="red", markup=False)

    @contextmanager
    def running(self, work: float) -> Iterator[None]:
        if not is_live(self.console):
            lines = ReminderLines(self.console)
            self._attacks = AttackLines(lines, self._cells)
            with lines.reminding(self._attacks.reminder):
                yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeLeft(),
        )
        with Progress(*columns, console=self.console) as self._progress:
            self._task = self._progress.add_task("starting", total=work)
            yield

    def started(self, cell: PlannedCell) -> None:
        if self._attacks is not None:
            self._attacks.started(cell)
        if self._progress is not None:
            self._progress.update(self._task, description=one_line(cell.text))

    def finished(self, outcome: Outcome) -> None:
        if outcome.error:
            self.console.print(f"{outcome.cell.name} failed: {outcome.error}", style="red", markup=False)
        if self._attacks is not None:
            self._attacks.finished(outcome)
        if self._progress is not None:
            self._progress.advance(self._task, outcome.cell.work)

    def interrupted(self, finished: int, missing: int) -> None:
        if self._progress is not None:
            self._progress.stop()
        rest = "give the same command again to resume" if self.resumable else "nothing was judged"
        self.console.print(f"interrupted: {finished} of {missing} cells finished and kept; {rest}")

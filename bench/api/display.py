"""The display of a running evaluation: the interface, a display that shows nothing, and one for notebooks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from exitbench.models.printable import one_line

if TYPE_CHECKING:
    from exitbench.runner.cell_writer import Outcome
    from exitbench.runner.plan import Plan, PlannedCell
    from exitbench.runner.prepare import Prepared


class Display(Protocol):
    """A display of the steps of an evaluation; ``exitbench.api.execution`` calls its methods in this order."""

    def prepared(self, prepared: Prepared) -> None:
        """Show a choice that was made for the user, if there was one."""

    def planned(self, plan: Plan) -> None:
        """Show what is done and what is left to do."""

    def choosing(self) -> AbstractContextManager[Any]:
        """Show, for as long as the context lasts, that a search model is chosen, compiled and timed."""

    def searching_on(self, text: str) -> None:
        """Show which search model was chosen."""

    def checking(self) -> AbstractContextManager[Any]:
        """Show, within the context, that the trust checks are running."""

    def check_failed(self, error: str) -> None:
        """Show why the trust checks could not be run."""

    def running(self, work: float) -> AbstractContextManager[Any]:
        """Show progress within the context, out of ``work`` expected gradients."""

    def started(self, cell: PlannedCell) -> None:
        """Show that a cell is started."""

    def finished(self, outcome: Outcome) -> None:
        """Show that a cell is finished, or why it is not."""

    def interrupted(self, finished: int, missing: int) -> None:
        """Show how many cells were finished before an interrupt."""


class NoDisplay:
    """A display that shows nothing."""

    def prepared(self, prepared: Prepared) -> None:
        """Show nothing."""

    def planned(self, plan: Plan) -> None:
        """Show nothing."""

    def choosing(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def searching_on(self, text: str) -> None:
        """Show nothing."""

    def checking(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def check_failed(self, error: str) -> None:
        """Show nothing: the evaluation's flags say that it was not checked."""

    def running(self, work: float) -> AbstractContextManager[Any]:
        return nullcontext()

    def started(self, cell: PlannedCell) -> None:
        """Show nothing."""

    def finished(self, outcome: Outcome) -> None:
        """Show nothing: the evaluation names its unfinished attacks."""

    def interrupted(self, finished: int, missing: int) -> None:
        """Show nothing: the interrupt goes on to the caller."""


class ProgressBar(NoDisplay):
    """A progress bar on standard error, or as a widget where a notebook has them."""

    def __init__(self) -> None:
        self._bar: Any = None

    def prepared(self, prepared: Prepared) -> None:
        if prepared.note:
            self._write(prepared.note)

    @contextmanager
    def checking(self) -> Iterator[None]:
        with self._shown(None, "trust checks"):
            yield

    def check_failed(self, error: str) -> None:
        self._write(f"trust checks failed: {error}")

    @contextmanager
    def running(self, work: float) -> Iterator[None]:
        with self._shown(work, "starting"):
            yield

    def started(self, cell: PlannedCell) -> None:
        self._bar.set_description(one_line(cell.text))

    def finished(self, outcome: Outcome) -> None:
        self._bar.update(outcome.cell.work)
        if outcome.error:
            self._write(f"{outcome.cell.name} failed: {outcome.error}")

    @contextmanager
    def _shown(self, total: float | None, text: str) -> Iterator[None]:
        tqdm = _tqdm()
        form = None if total is None else "{desc}: {percentage:3.0f} %|{bar}| {elapsed}<{remaining}"
        with tqdm(total=total, desc=text, bar_format=form or "{desc}: {elapsed}", leave=False) as self._bar:
            yield

    @staticmethod
    def _write(text: str) -> None:
        _tqdm().write(one_line(text), file=sys.stderr)


def _tqdm() -> Any:
    """Return tqdm's bar: a widget in a notebook that supports widgets, else text; no warning is shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm

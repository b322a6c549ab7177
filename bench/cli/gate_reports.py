"""The files that ``bench check`` is asked for: failed until there is a judgement, so that an end without one cannot pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from exitbench.report.regression.text import GateReport


@dataclass(frozen=True)
class ReportFiles:
    """The requested reports.

    Attributes:
        markdown, junit: Their files; None where one is not asked for.
    """

    markdown: Path | None
    junit: Path | None

    @contextmanager
    def pending(self) -> Iterator[None]:
        """Write them as failed before any code of the model runs; what stops the check is their reason, until ``judged``."""
        from exitbench.models.errors import InputError
        from exitbench.report.regression.not_judged import STARTED

        self.not_judged(STARTED)
        try:
            yield
        except InputError as error:
            self.not_judged(f"nothing was judged: {error}")
            raise
        except click.ClickException as error:
            self.not_judged(f"nothing was judged: {error.format_message()}")
            raise

    def not_judged(self, why: str) -> None:
        """Write that nothing was judged, and why."""
        from exitbench.report.regression.not_judged import not_judged_junit, not_judged_markdown

        self._write(not_judged_markdown(why), not_judged_junit(why))

    def judged(self, report: GateReport) -> None:
        """Write the judgement, also into the job's summary where CI names a file for it."""
        from exitbench.report.regression.junit import to_junit
        from exitbench.report.regression.markdown import to_markdown

        self._write(to_markdown(report), to_junit(report))
        if job := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(job).open("a", encoding="utf-8") as file:
                file.write(to_markdown(report))

    def _write(self, markdown: str, junit: bytes) -> None:
        from exitbench.models.whole_file import write_whole

        if self.markdown is not None:
            write_whole(self.markdown, markdown.encode())
        if self.junit is not None:
            write_whole(self.junit, junit)

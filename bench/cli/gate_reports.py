"""The files that ``bench check`` is asked for: failed until there is a judgement, so that an end without one cannot pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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

    def refuse_clashes(self, inputs: Mapping[str, Path | None]) -> None:
        """Check, before anything is written, that no report is another one, an input, or a committed baseline.

        Raises:
            UserError: If two are one file; the message names both.
        """
        from exitbench.analysis.regression.request import BASELINES
        from exitbench.cli.outputs import refuse_clashes

        outputs = {"--markdown": self.markdown, "--junit": self.junit}
        refuse_clashes(outputs, inputs)
        for baseline in sorted(BASELINES.glob("*.json")):
            refuse_clashes(outputs, {"the baseline": baseline})

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
        """Write that nothing was judged, and why; pipes and devices, which keep all that is written, get the judgement alone.

        Where it cannot be written, nor can the judgement, which is then the error.
        """
        from exitbench.cli.outputs import write_output
        from exitbench.report.regression.not_judged import not_judged_junit, not_judged_markdown

        for path, content in ((self.markdown, not_judged_markdown(why).encode()), (self.junit, not_judged_junit(why))):
            if path is not None and (path.is_file() or not path.exists()):
                with suppress(OSError):
                    write_output(path, content)

    def judged(self, report: GateReport) -> bool:
        """Write the judgement, also into the job's summary where CI names a file for it; return whether all was written."""
        from exitbench.cli.judgement_files import write_judgement
        from exitbench.report.regression.junit import to_junit
        from exitbench.report.regression.markdown import to_markdown

        text = to_markdown(report)
        return write_judgement({self.markdown: text.encode(), self.junit: to_junit(report)}, text)

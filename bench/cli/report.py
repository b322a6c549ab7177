"""``bench report``: every report again, from the store alone."""

from __future__ import annotations

from pathlib import Path

import click

from exitbench.cli.options import results_option, rule_option
from exitbench.cli.say import say


@click.command("report")
@results_option
@rule_option
def command(results: Path) -> None:
    """Write leaderboards, plots and the HTML page from the store, with no model and no data at hand."""
    from exitbench.errors import UserError
    from exitbench.report.write import rewrite_reports
    from exitbench.store.store import Store

    if not (results / "store").is_dir():
        raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    try:
        _, written = rewrite_reports(Store(results / "store"), results)
    except OSError as error:
        raise UserError(f"{error.filename or results} cannot be written: {error.strerror}") from error
    for path in written:
        say(path)

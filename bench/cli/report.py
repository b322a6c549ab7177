"""``exitbench report``: every report again, from the store alone; or one page of several results folders."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import rule_option
from exitbench.cli.say import say

_ADDRESS = re.compile(r"(?i:https?)://\S+|(?![a-z][a-z0-9+.-]*:|//)\S+", re.ASCII | re.IGNORECASE)
"""An address on the web, or one relative to the page; no other scheme, which could be code."""


def _links(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    links = {}
    for text in given:
        name, is_, address = text.partition("=")
        if not (name.strip() and is_ and _ADDRESS.fullmatch(address)):
            raise click.BadParameter(f"{text!r} is not NAME=ADDRESS, with an http(s) address or one relative to the page")
        links[name.strip()] = address
    return links


def _date(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str:
    if given is None:
        return ""
    try:
        return date.fromisoformat(given).isoformat()
    except ValueError:
        raise click.BadParameter(f"{given!r} is not a date such as 2026-11-27") from None


@click.command("report", short_help="Write leaderboards, plots and the page again")
@click.option(
    "--results",
    "folders",
    type=NamedPath(file_okay=False),
    multiple=True,
    default=(Path("results"),),
    show_default="results",
    help="A results folder. Several make one page together, which --output names.",
)
@click.option("--output", type=NamedPath(dir_okay=False), help="Write the page to this file, and nothing else.")
@click.option("--date", "dated", callback=_date, help="Date in the page's header, as 2026-11-27. [default: none]")
@click.option(
    "--link",
    "links",
    multiple=True,
    callback=_links,
    help="A link in the page's header, as Documentation=https://example.org/docs.",
)
@rule_option
def command(folders: tuple[Path, ...], output: Path | None, dated: str, links: dict[str, str]) -> None:
    """Write leaderboards, plots and the page from stored results; no network and no data are needed.

    Several --results with --output make one page of all their boards, with a tab for each.
    """
    from exitbench.cli.outputs import reason, write_output
    from exitbench.errors import UserError
    from exitbench.report.page.header import Header
    from exitbench.report.write import page_of, rewrite_reports
    from exitbench.store.store import Store

    for results in folders:
        if not (results / "store").is_dir():
            raise UserError(f"there is no store in {results}; run an evaluation first, or name its folder with --results")
    header = Header(dated, links)
    if output is not None:
        try:
            write_output(output, page_of(folders, header).encode())
        except OSError as error:
            raise UserError(f"{output} cannot be written: {reason(error)}") from error
        return say(output)
    if len(folders) > 1:
        raise UserError(f"{len(folders)} results folders make one page; name its file with --output")
    try:
        _, written = rewrite_reports(Store(folders[0] / "store"), folders[0], header)
    except OSError as error:
        raise UserError(f"{error.filename or folders[0]} cannot be written: {error.strerror}") from error
    for path in written:
        say(path)
    return None

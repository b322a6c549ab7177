"""The command group, and how errors become messages and exit codes."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys

import click

from exitbench.cli.said_once import Once
from exitbench.models.printable import LineFormatter

EXIT_CODES = """
\b
Try it:  exitbench run --model rdi_smallcnn --dataset digits --n 32

\b
Exit codes:
  0    done
  1    an attack or a trust check ended in an error, a claim does not
       hold, or the network got worse than its baseline
  2    bad input, or a file that cannot be written
  70   a bug, or code of a network or package ended the process
  130, 143, 129
       interrupted, or ended by SIGTERM or SIGHUP; finished work is
       kept: give the same command again to resume
"""

UNFINISHED = 70
"""Exit code of a command that ended before its end, for no reason that it knows of."""

_GROUPS = {
    "Evaluate": {
        "run": "exitbench.cli.run",
        "plan": "exitbench.cli.plan",
        "status": "exitbench.cli.status",
        "certify": "exitbench.cli.certify",
    },
    "Look at results": {
        "report": "exitbench.cli.report",
        "sweep": "exitbench.cli.sweep",
        "compare": "exitbench.cli.compare",
        "robustbench": "exitbench.cli.robustbench",
    },
    "Check and share results": {
        "verify": "exitbench.cli.verify",
        "check": "exitbench.cli.check",
        "export": "exitbench.cli.export",
        "submit": "exitbench.cli.submit",
        "merge": "exitbench.cli.merge",
    },
    "Networks and weights": {
        "list": "exitbench.cli.listing",
        "cost": "exitbench.cli.cost",
        "latency": "exitbench.cli.latency",
        "train": "exitbench.cli.train",
        "publish": "exitbench.cli.publish",
        "import-checkpoint": "exitbench.cli.import_checkpoint",
    },
    "The suite itself": {
        "perf": "exitbench.cli.perf",
    },
}
"""Modules of the commands, by the heading under which help lists them."""

_COMMANDS = {name: module for group in _GROUPS.values() for name, module in group.items()}


class _LazyGroup(click.Group):
    """Imports a command's module when it is asked for, and suggests the near miss for a wrong name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            near = difflib.get_close_matches(cmd_name, _COMMANDS, n=1)
            raise click.UsageError(f"no such command {cmd_name!r}" + (f"; did you mean {near[0]!r}?" if near else ""), ctx)
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands under the headings of their groups, each with its whole summary."""
        width = max(map(len, _COMMANDS))
        for title, names in _GROUPS.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            rows = [(name.ljust(width), each.short_help or "") for name, each in commands.items() if each is not None]
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=_LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="exitbench")
@click.option("-v", "--verbose", is_flag=True, help="Show log messages of the libraries as well.")
def cli(verbose: bool) -> None:
    """The robustness benchmark for networks that exit early."""
    level = logging.INFO if verbose else logging.ERROR
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(name)s: %(message)s"))
    handler.addFilter(Once())
    logging.basicConfig(level=level, handlers=[handler])
    for name in ("plugins", "weights"):
        logging.getLogger(f"exitbench.models.{name}").setLevel(logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Run the command line and leave with its exit code."""
    from exitbench.cli.encoding import print_whatever_can_be_printed
    from exitbench.cli.ending import ended_by
    from exitbench.cli.interrupts import INTERRUPTED, ending_signals
    from exitbench.cli.say import flush, say

    print_whatever_can_be_printed()
    os.environ["MPLBACKEND"] = "agg"  # commands draw into files, whatever there is to show windows with
    with ending_signals() as ending:
        try:
            code = cli.main(standalone_mode=False) or 0
            flush()
        except SystemExit as left:  # not ours: commands leave with click's Exit
            say(f"error: code of a network or package asked to end the process ({left.code!r}): no result", err=True)
            code = UNFINISHED
        except BaseException as error:  # noqa: BLE001 - the last handler
            code = ended_by(error)
    sys.exit(ending.code if code == INTERRUPTED or ending.received else code)

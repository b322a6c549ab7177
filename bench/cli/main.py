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
Exit codes: 0 done; 1 some attacks or trust checks ended in errors,
a claim does not hold, or a gate is not passed; 2 bad input, or what
cannot be written; 70 a bug, or code of a network or package ended the
process; 130 interrupted, 143 ended by SIGTERM, 129 by SIGHUP
(finished cells are kept: run the same command again to resume).
"""

UNFINISHED = 70
"""Exit code of a command that ended before its end, for no reason that it knows of."""

_COMMANDS = {
    "run": "exitbench.cli.run",
    "certify": "exitbench.cli.certify",
    "plan": "exitbench.cli.plan",
    "status": "exitbench.cli.status",
    "report": "exitbench.cli.report",
    "sweep": "exitbench.cli.sweep",
    "check": "exitbench.cli.check",
    "compare": "exitbench.cli.compare",
    "merge": "exitbench.cli.merge",
    "verify": "exitbench.cli.verify",
    "export": "exitbench.cli.export",
    "submit": "exitbench.cli.submit",
    "list": "exitbench.cli.listing",
    "cost": "exitbench.cli.cost",
    "latency": "exitbench.cli.latency",
    "robustbench": "exitbench.cli.robustbench",
    "train": "exitbench.cli.train",
    "publish": "exitbench.cli.publish",
    "perf": "exitbench.cli.perf",
    "import-checkpoint": "exitbench.cli.import_checkpoint",
}


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


@click.group(cls=_LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="exitbench")
@click.option("-v", "--verbose", is_flag=True, help="Log what the libraries say, too.")
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

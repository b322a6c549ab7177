"""The command group, and how errors become messages and exit codes."""

from __future__ import annotations

import difflib
import importlib
import logging
import sys

import click

EXIT_CODES = """
\b
Exit codes: 0 done; 1 some attacks or trust checks ended in errors,
a claim does not hold, or a gate is not passed; 2 bad input;
70 ended by code of a network or package, without a result;
130 interrupted (finished cells are kept: run the same command again to resume).
"""

UNFINISHED = 70
"""Exit code of a command that ended before its end, for no reason that it knows of."""

_COMMANDS = {
    "run": "exitbench.cli.run",
    "plan": "exitbench.cli.plan",
    "status": "exitbench.cli.status",
    "report": "exitbench.cli.report",
    "sweep": "exitbench.cli.sweep",
    "check": "exitbench.cli.check",
    "compare": "exitbench.cli.compare",
    "merge": "exitbench.cli.merge",
    "verify": "exitbench.cli.verify",
    "export": "exitbench.cli.export",
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
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
    for name in ("plugins", "weights"):
        logging.getLogger(f"exitbench.models.{name}").setLevel(logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Run the command line and leave with its exit code."""
    from exitbench.cli.encoding import print_whatever_can_be_printed
    from exitbench.models.errors import InputError
    from exitbench.models.own_code import IncompleteInstallation

    print_whatever_can_be_printed()
    try:
        code = cli.main(standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        code = _say("interrupted; what is finished is kept, the same command goes on from there", 130)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (InputError, IncompleteInstallation, OSError) as error:
        code = _say(f"error: {error}", 2)
    except SystemExit as left:  # not ours: commands leave with click's Exit
        code = _say(f"error: code of a network or package asked to end the process ({left.code!r}): no result", UNFINISHED)
    sys.exit(code or 0)


def _say(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code

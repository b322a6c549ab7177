"""Prints lines: with ``exitbench.cli.console`` all that prints, and each line passes through ``exitbench.models.printable``."""

from __future__ import annotations

import sys

import click

from exitbench.models.printable import one_line


class OutputLost(Exception):
    """What is printed cannot be written: a full disk behind ``>``, a closed pipe, a terminal that is gone.

    It is no ``OSError``: those are about results folders and the user's files.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.error = error


def say(*lines: object, err: bool = False) -> None:
    """Print lines; each stays one, whatever is in it.

    Raises:
        OutputLost: If they cannot be written.
    """
    try:
        click.echo("\n".join(map(one_line, lines)), err=err)
    except OSError as error:
        raise OutputLost(error) from error


def flush() -> None:
    """Write what other code has printed.

    Raises:
        OutputLost: If it cannot be written.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OutputLost(error) from error

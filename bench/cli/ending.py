"""How a command ends: what every error says, and its exit code."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from exitbench.cli.bug import BUG, lines_of_bug
from exitbench.cli.interrupts import INTERRUPTED
from exitbench.cli.say import OutputLost, say
from exitbench.models.error_text import first_line
from exitbench.models.errors import InputError
from exitbench.models.own_code import IncompleteInstallation

BAD_INPUT = 2
BROKEN_PIPE = 141
"""128 + SIGPIPE, as a shell reports programs that SIGPIPE ends."""

_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "can't start new thread", "out of memory", "failed to map")
_MEMORY = "close what else takes memory, raise the limit (ulimit -v), or evaluate fewer images at once"


def ended_by(error: BaseException) -> int:
    """Print what an error is about, where there is anything to print it to, and return the exit code.

    Raises:
        BaseException: The error itself, if it is none of ours to handle, such as ``SystemExit``.
    """
    code, lines = _ending(error)
    if isinstance(error, OutputLost):
        _give_up_output()
    with contextlib.suppress(OutputLost):
        if lines:
            say(*lines, err=True)
    return code


def _ending(error: BaseException) -> tuple[int, list[str]]:
    match error:
        case click.Abort() | KeyboardInterrupt():
            found = INTERRUPTED, ["interrupted; finished work is kept: give the same command again to resume"]
        case click.ClickException():
            found = error.exit_code, _usage(error)
        case InputError() | IncompleteInstallation():
            found = BAD_INPUT, [f"error: {error}"]
        case OutputLost():
            found = _lost(error.error)
        case OSError():
            found = BAD_INPUT, [f"error: {_said(error)}"]
        case Exception() if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _NO_MEMORY):
            found = BAD_INPUT, [f"error: there is not enough memory ({first_line(error)}); {_MEMORY}"]
        case Exception():
            found = BUG, lines_of_bug(error)
        case _:
            raise error
    return found


def _usage(error: click.ClickException) -> list[str]:
    """Return what click prints of an error: how the command is used, and what is wrong."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    usage = [*context.get_usage().splitlines(), f"Try '{context.command_path} --help' for help.", ""] if context else []
    return [*usage, f"Error: {error.format_message()}"]


def _lost(error: OSError) -> tuple[int, list[str]]:
    """Return how a command ends whose output is lost; one who has read enough of it, as ``head``, is told nothing."""
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE, []
    return BAD_INPUT, [f"error: the output cannot be written ({_said(error)}); what is finished is kept in the results folder"]


def _give_up_output() -> None:
    """Send what waits in the buffer nowhere: Python would try to write it once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _said(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror

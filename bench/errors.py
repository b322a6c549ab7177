"""The error for bad input: it is shown as one message, with exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from exitbench.models.errors import InputError


class UserError(InputError):
    """Bad input to an evaluation; the message says what was given, what is allowed, and what to do."""


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Raise the input errors of networks and attacks as ``UserError``; an error of any other kind is a bug and passes."""
    try:
        yield
    except UserError:
        raise
    except InputError as error:
        raise UserError(str(error)) from error

"""The errors of whoever asked, which are shown as a message; whatever else is raised is a bug, whose traceback is kept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input; the message says what was given, what is allowed, and what to do.

    It is raised where input is parsed and checked, nowhere else.
    """


class InvalidValue(InputError, ValueError):
    """A value that is out of range, or text that is not of the form."""


class NameTaken(InputError, ValueError):
    """Two things of one name; the message names both."""


class ForeignModelError(InvalidValue):
    """A network, or its factory, cannot be evaluated as it is; the message says what was found and what is expected."""


class ChangedOutputs(ForeignModelError):
    """A network returns another number of exits than at first: it is another network, and its results are of none."""


class UnknownName(InputError, LookupError):
    """A name that is not registered; the message holds the near misses and all that is allowed."""

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        names = sorted(allowed)
        by_lower = {known.lower(): known for known in names}
        near = [by_lower[known] for known in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")

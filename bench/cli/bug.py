"""The last handler: a bug ends in one line, and its traceback is kept where it can be found."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

BUG = 70
"""Exit code of a bug, ``EX_SOFTWARE`` of sysexits.h: nobody's input was bad."""

DEBUG = "EXITBENCH_DEBUG"
"""Environment variable; with any value, the traceback is printed as well."""

_KEPT = 20


def lines_of_bug(error: Exception) -> list[str]:
    """Keep the traceback of an error that nobody expected, and return what to print: one line, and with ``DEBUG`` the traceback.

    It is kept in the user's log folder, or among the temporary files where that cannot be written.
    """
    from exitbench.models.error_text import first_line

    told = "".join(traceback.format_exception(error))
    where = _kept(told)
    place = f"its traceback is in {where}, {DEBUG}=1 prints it" if where else "its traceback could not be kept"
    shown = told.splitlines() if os.environ.get(DEBUG) or where is None else []
    return [*shown, f"error: a bug, in exitbench or in code that it was given: {first_line(error)}{_at(error)}; {place}"]


def _at(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _kept(told: str) -> Path | None:
    """Write the traceback with what it happened to, and return its file; None if no place takes it."""
    content = f"{datetime.now(UTC).isoformat()}\n{' '.join(sys.argv)}\n{_versions()}\n\n{told}"
    name = f"bug-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    for place in _places():
        with suppress(OSError, RuntimeError):
            folder = place()
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(content)
            _remove_oldest(folder)
            return path
    return None


def _places() -> Iterator[Callable[[], Path]]:
    from exitbench.models.user_folders import log_folder

    yield log_folder
    yield lambda: Path(tempfile.mkdtemp(prefix="exitbench-"))


def _remove_oldest(folder: Path) -> None:
    for path in sorted(folder.glob("bug-*.txt"))[:-_KEPT]:
        with suppress(OSError):
            path.unlink()


def _versions() -> str:
    found = [f"python {platform.python_version()} on {platform.platform()}"]
    for package in ("exitbench", "torch", "numpy"):
        with suppress(Exception):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)

"""Files that the user names as outputs: none replaces an input, another output, or anything that is not a file."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from exitbench.models.whole_file import write_whole

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Flags that Windows has not: do not wait for a reader, and do not become a terminal's process."""


def refuse_clashes(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Check, before any work, that no output is another one or an input; the mappings go from options to their files.

    Raises:
        UserError: If two are one file; the message names both options.
    """
    from exitbench.errors import UserError

    written = [(name, path) for name, path in outputs.items() if path is not None]
    read = [(name, path) for name, path in inputs.items() if path is not None]
    for (name, path), (other, there) in [*combinations(written, 2), *((each, this) for each in written for this in read)]:
        if _same(path, there):
            raise UserError(f"{name} {path} and {other} {there} are one file; give {name} another name")


def _same(path: Path, other: Path) -> bool:
    with suppress(OSError):
        return path.samefile(other)
    with suppress(OSError, RuntimeError):  # a link to itself
        return path.resolve() == other.resolve()
    return path == other


def write_output(path: Path, content: bytes) -> None:
    """Write what the user asked for: a file appears whole or not at all; a pipe or a device is written into.

    A link stays one: its file is written. Our own output streams, as ``/dev/stdout``, are written to as they are.

    Raises:
        OSError: If it cannot be written, if nobody reads from a pipe, or for a folder, a socket or a disk.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    if status is not None and (stream := _own_stream(status)) is not None:
        _into(os.dup(stream), content)
    elif status is None or stat.S_ISREG(status.st_mode):
        write_whole(path.resolve() if path.is_symlink() else path, content)
    elif stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
        _into(_opened(path), content)
    else:
        raise OSError(errno.EINVAL, "it is a folder, a socket or a disk, not a file", str(path))


def reason(error: OSError) -> str:
    """Return why something cannot be written, without the number of the error."""
    return error.strerror or str(error)


def _own_stream(status: os.stat_result) -> int | None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
            handle = stream.fileno()
            if os.path.samestat(os.fstat(handle), status) and not stat.S_ISCHR(status.st_mode):
                return handle
    return None


def _opened(path: Path) -> int:
    """Open a pipe or device; a pipe without a reader is an error, not a reason to wait."""
    try:
        handle = os.open(path, os.O_WRONLY | _AT_ONCE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads from this pipe", str(path)) from error
        raise
    if _AT_ONCE:
        os.set_blocking(handle, True)
    return handle


def _into(handle: int, content: bytes) -> None:
    with os.fdopen(handle, "wb") as file:
        file.write(content)

"""Atomic writes, used for every file that is written to disk."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = ".partial-"
_STALE_S = 3600


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: under a temporary name, flushed to disk, then renamed. Readers see all of it or nothing.

    Raises:
        OSError: If the folder cannot be created or written, the disk is full, or ``path`` is a device, pipe or socket, which no
            file replaces; no partial file is left.
    """
    _refuse_special(path)
    try:
        _write_and_rename(path, content)
    except FileNotFoundError:
        # The temporary file was swept by a process whose clock is an hour ahead, or the whole folder was deleted.
        _write_and_rename(path, content)


def _refuse_special(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:  # missing, or the write will say what is wrong
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, not a file", str(path))


def _write_and_rename(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_PREFIX)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove temporary files of killed writers, those older than an hour, from ``folder`` and below."""
    for partial in folder.rglob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # its writer has just finished
            if time.time() - partial.stat().st_mtime > _STALE_S:
                partial.unlink()

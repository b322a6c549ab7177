"""The files of a store are read and written inside its folder alone: never through a link, a device or a pipe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from exitbench.errors import UserError
from exitbench.models.stored import Unreadable
from exitbench.models.whole_file import write_whole

MOST_TEXT = 16 * 2**20
"""Largest JSON file that is read, in bytes: the record of a hundred thousand images under forty attacks has nine million."""

FOLDERS = (
    *("calibration", "cells", "certificates", "errors", "latency", "live", "logs", "networks", "quarantine", "runs", "trust"),
    "verified",
)
"""What a store holds."""

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EMLINK)
_FLAGS = _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def read_small(path: Path, most: int = MOST_TEXT) -> bytes:
    """Return the content of a text file that the user names, which may be a link.

    Raises:
        OSError: it cannot be opened.
        Unreadable: it is no regular file, or too large.
    """
    with _regular(path, os.open(path, os.O_RDONLY | (_FLAGS & ~_NO_LINK)), most) as file:
        return file.read(most + 1)


def open_inside(root: Path, path: Path, most: int = MOST_TEXT) -> BinaryIO:
    """Open a file of the store at ``root`` for reading.

    Args:
        root: of the store; it may itself be a link.
        path: of the file, which begins with ``root``.
        most: largest size in bytes.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be opened now, though it is one.
        Unreadable: it is no regular file, it is one behind a link, or it is too large.
    """
    refuse_links(root, path.parent)
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        why = "it is a link" if path.is_symlink() else error.strerror
        raise Unreadable(f"{path} cannot be read: {why}") from error
    return _regular(path, handle, most)


def _regular(path: Path, handle: int, most: int) -> BinaryIO:
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_size <= most:
        return os.fdopen(handle, "rb")
    os.close(handle)
    why = f"it has {found.st_size:,} bytes, at most {most:,} are read" if stat.S_ISREG(found.st_mode) else "it is no regular file"
    raise Unreadable(f"{path} cannot be read: {why}")


def read_inside(root: Path, path: Path, most: int = MOST_TEXT) -> bytes:
    """Return the content of a file of the store at ``root``; see ``open_inside``."""
    with open_inside(root, path, most) as file:
        return file.read(most + 1)


def write_inside(root: Path, path: Path, content: bytes) -> None:
    """Write a file of the store at ``root``, all of it or nothing.

    Raises:
        Unreadable: a folder on the way is a link.
        OSError: it cannot be written.
    """
    refuse_links(root, path.parent)
    write_whole(path, content)


def open_own(name: str, flags: int) -> int:
    """Open a file that is written over or added to, as ``opener`` of ``open``; a link and what is no regular file are refused.

    Raises:
        OSError: it is one, or it cannot be opened.
    """
    handle = os.open(name, flags | _FLAGS, 0o644)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no regular file", name)


def refuse_links(root: Path, folder: Path) -> None:
    """Check that no folder from ``root`` down to ``folder`` is a link.

    Raises:
        Unreadable: one is, or ``folder`` is outside.
    """
    if not folder.is_relative_to(root):
        raise Unreadable(f"{folder} is outside of {root}; nothing outside of a store's folder is read or written")
    at = root
    for part in folder.relative_to(root).parts:
        at = at / part
        if at.is_symlink() or part == "..":
            raise Unreadable(f"{at} is a link; nothing outside of a store's folder is read or written")


def check_folders(root: Path) -> None:
    """Check the folders of a store.

    Raises:
        UserError: one of them is a link.
    """
    for name in FOLDERS:
        if (root / name).is_symlink():
            raise UserError(
                f"{root / name} is a link; a store is one folder, so that nothing outside of it is read or written: "
                "put the whole results folder where there is room"
            )

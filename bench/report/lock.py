"""A lock on the reports of a results folder: whoever writes them has read the store within it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)

NOTICE_S, LIMIT_S = 10.0, 600.0
"""Seconds after which a wait for another process is named, and given up; reports take seconds."""

_NAME = "reports.lock"


@contextmanager
def reports_locked(results: Path) -> Iterator[None]:
    """Hold the reports of ``results`` while the store is read and they are written.

    Without it, a process that has read the store, and writes when another has finished an evaluation and its reports, leaves
    reports without that evaluation. Where the file system has no locks, nothing is held.

    Raises:
        OSError: If the folder cannot be written, or another process has held the lock for ``LIMIT_S``.
    """
    results.mkdir(parents=True, exist_ok=True)
    store = results / "store"
    lock = FileLock((store if store.is_dir() else results) / _NAME)
    try:
        _acquire(lock, results)
    except NotImplementedError:
        _log.warning("the file system of %s has no locks; do not write reports there from two processes at once", results)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, results: Path) -> None:
    try:
        lock.acquire(timeout=NOTICE_S)
    except Timeout:
        _log.error("waiting for another process, which writes the reports in %s", results)
    else:
        return
    try:
        lock.acquire(timeout=LIMIT_S)
    except Timeout as error:
        why = "another process has been writing its reports for ten minutes; end it, and give `exitbench report`"
        raise OSError(errno.EAGAIN, why, str(results)) from error

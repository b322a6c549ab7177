"""What a run that is going on tells of itself: a file that it holds locked as long as it lives, and a log that rotates."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from filelock import has_fcntl, lock_descriptor, unlock_descriptor
from msgspec.structs import replace

from exitbench.models.stored import Format, Stored, Unreadable

_TRIES, _PAUSE_S = 6, 0.01
_LOG_BYTES, _LOG_FILES = 1_000_000, 3
_LOGGED = "exitbench"
_log = logging.getLogger(__name__)


class Heartbeat(Stored, frozen=True):
    """The last sign of life of a run.

    Attributes:
        run: name of its record.
        pid, host: of its process.
        started, updated: UTC, for people to read; nothing is decided by them, for clocks change.
        cell: worked on last, in words.
        finished, failed, cells: how many of the cells that were missing at its start are done, ended in errors, and were missing.
        elapsed_s: since its start.
        left_s: expected until its end, by gradients; None before the first cell is done.
    """

    run: str
    pid: int
    host: str
    started: str
    updated: str
    cell: str
    finished: int
    failed: int
    cells: int
    elapsed_s: float
    left_s: float | None


HEARTBEAT = Format("a heartbeat", Heartbeat)


class RunMonitor:
    """Shows that a run goes on, as long as the context lasts.

    Nothing here may stop a run: what cannot be written is not written.

    Args:
        store: root of the store.
        run: name of the run's record.
        cells: how many cells are missing.
        work: expected gradients of them all.
    """

    def __init__(self, store: Path, run: str, cells: int, work: float) -> None:
        self._began, self._work, self._worked = time.monotonic(), work, 0.0
        now = _now()
        self._heartbeat = Heartbeat(run, os.getpid(), socket.gethostname(), now, now, "", 0, 0, cells, 0.0, None)
        self._path = store / "live" / f"{run}-{os.getpid()}.json"
        self._log_path = store / "logs" / f"{run}.log"
        self._file: IO[str] | None = None
        self._handler: logging.Handler | None = None
        self._level, self._said = logging.NOTSET, _ConsoleFilter(logging.NOTSET)

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            _remove_stale(self._path.parent, self._heartbeat.run)
            self._file = self._path.open("w", encoding="utf-8")
            _lock(self._file)
            self._log_path.parent.mkdir(exist_ok=True)
            self._handler = _Quiet(self._log_path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
            formatter = logging.Formatter("%(asctime)sZ %(process)d %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
            formatter.converter = time.gmtime
            self._handler.setFormatter(formatter)
            logger = logging.getLogger(_LOGGED)
            self._level, self._said = logger.level, _ConsoleFilter(logger.getEffectiveLevel())
            for handler in logging.getLogger().handlers:
                handler.addFilter(self._said)
            logger.addHandler(self._handler)
            logger.setLevel(logging.INFO)
        _log.info("%d cells to run", self._heartbeat.cells)
        self._write()
        return self

    def working_on(self, cell: str) -> None:
        """A cell was begun."""
        self._heartbeat = replace(self._heartbeat, cell=cell)
        self._write()

    def done(self, cell: str, work: float, error: str | None) -> None:
        """A cell is finished, or ended in an error."""
        heartbeat, self._worked = self._heartbeat, self._worked + work
        elapsed = time.monotonic() - self._began
        left = elapsed * max(self._work - self._worked, 0) / self._worked if self._worked else None
        self._heartbeat = replace(
            heartbeat, finished=heartbeat.finished + (error is None), failed=heartbeat.failed + (error is not None), left_s=left
        )
        _log.info("%s: %s", cell, error or "finished")
        self._write()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        _log.info("ended: %s", "all worked off" if kind is None else f"{kind.__name__} {error}".strip())
        if self._handler is not None:
            logger = logging.getLogger(_LOGGED)
            logger.removeHandler(self._handler)
            logger.setLevel(self._level)
            for handler in logging.getLogger().handlers:
                handler.removeFilter(self._said)
            self._handler.close()
        if self._file is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            with suppress(OSError):
                self._file.close()

    def _write(self) -> None:
        if self._file is None:
            return
        self._heartbeat = replace(self._heartbeat, updated=_now(), elapsed_s=round(time.monotonic() - self._began, 1))
        with suppress(OSError):
            self._file.seek(0)
            self._file.write(
                json.dumps(HEARTBEAT.content(self._heartbeat)) + "\n"
            )  # one write: who reads in between sees a whole line
            self._file.truncate()
            self._file.flush()


def heartbeats(store: Path) -> Iterator[tuple[Heartbeat, bool | None]]:
    """Every run's last sign of life, and whether its process lives: it holds its file locked.

    None where that cannot be told: on another machine, where files cannot be locked, or on Windows, where nobody could
    read a locked one.
    """
    for path in sorted((store / "live").glob("*.json")):
        try:
            with path.open("r+", encoding="utf-8") as file:
                lives = _is_held(file)
                heartbeat = HEARTBEAT.read_text(file.readline(), path)
        except (OSError, UnicodeDecodeError, Unreadable):
            continue  # it ended, or was killed as it wrote its first sign
        yield heartbeat, lives if heartbeat.host == socket.gethostname() else None


def _is_held(file: IO[str]) -> bool | None:
    """Return whether a process holds the file locked; None where that cannot be told."""
    locked = _lock(file)
    if locked:
        unlock_descriptor(file.fileno())
    return None if locked is None else not locked


def _lock(file: IO[str]) -> bool | None:
    """Lock the file until it is closed and return whether that succeeded; None where files cannot be locked.

    Who looks whether a run lives holds its file for an instant, so that a file counts as held only when it stays so.
    """
    if not has_fcntl:
        return None
    try:
        for _ in range(_TRIES):
            if lock_descriptor(file.fileno(), blocking=False):
                return True
            time.sleep(_PAUSE_S)
    except OSError:
        return None
    return False


def _remove_stale(folder: Path, run: str) -> None:
    """Remove what killed processes left of this run."""
    for path in folder.glob(f"{run}-*.json"):
        with suppress(OSError), path.open("r+", encoding="utf-8") as file:
            if _is_held(file) is False:
                path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _ConsoleFilter(logging.Filter):
    """What the log's level adds goes to the file alone, not to the terminal."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level or record.name.partition(".")[0] != _LOGGED


class _Quiet(RotatingFileHandler):
    """A full disk stops no run for its log's sake."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the line."""

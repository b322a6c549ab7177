"""The heartbeat of a running evaluation: a file that the process keeps locked, and a rotating log."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from filelock import has_fcntl, lock_descriptor, unlock_descriptor
from msgspec.structs import replace

from exitbench.models.field_types import Line, Measured, Name, Number
from exitbench.models.printable import LineFormatter
from exitbench.models.stored import Format, Stored, Unreadable
from exitbench.store.inside import open_inside, open_own

_TRIES, _PAUSE_S = 6, 0.01
_LOG_BYTES, _LOG_FILES = 1_000_000, 3
_LONGEST, _MOST_LOG = 100_000, 2**40
_LOGGED = "exitbench"
_log = logging.getLogger(__name__)


class Heartbeat(Stored, frozen=True):
    """The last heartbeat of a run.

    Attributes:
        run: Name of the run record.
        pid, host: The process and its machine.
        started, updated: Times in UTC, for display only, as clocks change.
        cell: Name of the current or last cell.
        finished, failed, cells: Of the cells that were missing at the start, the numbers finished, failed, and in total.
        elapsed_s: Seconds since the start.
        left_s: Expected seconds left, by gradients; None before the first cell is done.
    """

    run: Name
    pid: Number
    host: Line
    started: Line
    updated: Line
    cell: Line
    finished: Number
    failed: Number
    cells: Number
    elapsed_s: Measured
    left_s: Measured | None


HEARTBEAT = Format("a heartbeat", Heartbeat)


class RunMonitor:
    """A context that writes the heartbeat and the log of a run while it lasts.

    Errors in writing never stop a run.

    Args:
        store: Root of the store.
        run: Name of the run record.
        cells: Number of missing cells.
        work: Expected gradients of all of them.
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
            self._file = open(self._path, "w", encoding="utf-8", opener=open_own)
            _lock(self._file)
            self._log_path.parent.mkdir(exist_ok=True)
            self._handler = _Quiet(self._log_path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
            formatter = LineFormatter("%(asctime)sZ %(process)d %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
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
        """Record that a cell is started."""
        self._heartbeat = replace(self._heartbeat, cell=cell)
        self._write()

    def done(self, cell: str, work: float, error: str | None) -> None:
        """Record that a cell is finished, or ended in an error."""
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
            )  # one write, so that readers always see a whole line
            self._file.truncate()
            self._file.flush()


def heartbeats(store: Path) -> Iterator[tuple[Heartbeat, bool | None]]:
    """Yield every run's last heartbeat, and whether its process is alive, which keeps its file locked.

    The latter is None if it is unknown: on another machine, where files cannot be locked, or on Windows, where locked files
    cannot be read.
    """
    for path in sorted((store / "live").glob("*.json")):
        try:
            with open(path, "r+", encoding="utf-8", opener=open_own) as file:
                lives = _is_held(file)
                heartbeat = HEARTBEAT.read_text(file.readline(_LONGEST), path)
        except (OSError, UnicodeDecodeError, Unreadable):
            continue  # it ended, or was killed while writing its first heartbeat
        yield heartbeat, lives if heartbeat.host == socket.gethostname() else None


def log_end(store: Path, run: str, lines: int) -> tuple[Path, list[str]] | None:
    """Return the file of a run's log and its last lines; None where there is none.

    Raises:
        Unreadable: it is no regular file of the store.
    """
    path = store / "logs" / f"{run}.log"
    try:
        with open_inside(store, path, _MOST_LOG) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST))
            return path, file.read(_LONGEST).decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return None


def _is_held(file: IO[str]) -> bool | None:
    """Return whether a process holds the file locked, or None if that is unknown."""
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
    """Remove the files of killed processes of this run."""
    for path in folder.glob(f"{run}-*.json"):
        with suppress(OSError), open(path, "r+", encoding="utf-8", opener=open_own) as file:
            if _is_held(file) is False:
                path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _ConsoleFilter(logging.Filter):
    """A filter that keeps records below the terminal's level out of it; they go to the file only."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level or record.name.partition(".")[0] != _LOGGED


class _Quiet(RotatingFileHandler):
    """A log handler that ignores errors, such as a full disk, and writes to no link, pipe or device."""

    def _open(self) -> TextIOWrapper:
        file = open(self.baseFilename, self.mode, encoding=self.encoding, opener=open_own)  # noqa: SIM115 - as above
        return cast(TextIOWrapper, file)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the line."""

"""The status of the runs in a store, from its files alone: running, finished, stopped or killed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exitbench.models.stored import Unreadable
from exitbench.store.cell_error import CELL_ERROR
from exitbench.store.heartbeat import Heartbeat, heartbeats
from exitbench.store.inside import read_inside
from exitbench.store.run_record import RunRecord, read_run
from exitbench.store.store import cell_path


@dataclass(frozen=True)
class AttackStatus:
    """The status of one attack of a run.

    Attributes:
        name: Name in reports.
        done, cells: Number of stored cells, and of all cells.
        error: Error of a cell that is still missing; None if there is none.
    """

    name: str
    done: int
    cells: int
    error: str | None


@dataclass(frozen=True)
class RunStatus:
    """The status of a run.

    Attributes:
        run: name of its record.
        record: what it is about.
        attacks: see ``AttackStatus``, in the order of the record.
        last: when its newest cell was written, UTC; None without one.
        sign: last sign of life of the process at work on it; None where it left none, or has ended properly.
        lives: whether that process lives; None where that cannot be told.
    """

    run: str
    record: RunRecord
    attacks: tuple[AttackStatus, ...]
    last: str | None
    heartbeat: Heartbeat | None
    lives: bool | None

    @property
    def done(self) -> int:
        """Number of stored cells."""
        return sum(attack.done for attack in self.attacks)

    @property
    def cells(self) -> int:
        """Number of cells of the run."""
        return sum(attack.cells for attack in self.attacks)

    @property
    def errors(self) -> int:
        """Number of attacks with an error in a cell that is still missing."""
        return sum(attack.error is not None for attack in self.attacks)

    @property
    def state(self) -> str:
        """The state in a few words."""
        if self.heartbeat is not None and self.lives:
            return "running"
        if self.done == self.cells:
            return "finished"
        if self.heartbeat is not None and self.lives is None:
            return f"on {self.heartbeat.host}, last heartbeat {self.heartbeat.updated}"
        if self.heartbeat is not None:
            return f"killed while on {self.heartbeat.cell}" if self.heartbeat.cell else "killed"
        return f"ended, errors in {self.errors} attacks" if self.errors else "stopped"


def statuses(store: Path) -> tuple[list[RunStatus], list[str]]:
    """Every run of a store, the one worked on last first, and why each of the others cannot be read."""
    living: dict[str, tuple[Heartbeat, bool | None]] = {}
    for heartbeat, lives in heartbeats(store):
        if heartbeat.run not in living or lives:
            living[heartbeat.run] = (heartbeat, lives)
    found, unreadable = [], []
    for path in sorted((store / "runs").glob("*.json")):
        try:
            record = read_run(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            unreadable.append(f"{path} cannot be read: {error.strerror or error}")
        except Unreadable as error:
            unreadable.append(str(error))
        else:
            found.append(_status(store, path, record, *living.get(path.stem, (None, None))))
    return sorted(found, key=lambda status: (status.state == "running", status.last or ""), reverse=True), unreadable


def _status(store: Path, path: Path, record: RunRecord, heartbeat: Heartbeat | None, lives: bool | None) -> RunStatus:
    attacks, newest = [], 0.0
    for attack in record.attacks:
        written = [_written(cell_path(store, key)) for key in attack.keys]
        newest = max(newest, *written, 0.0)
        missing = [key for key, when in zip(attack.keys, written, strict=True) if not when]
        error = next((text for key in missing if (text := _error(store, key))), None)
        attacks.append(AttackStatus(attack.name, len(written) - len(missing), len(written), error))
    last = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if newest else None
    return RunStatus(path.stem, record, tuple(attacks), last, heartbeat, lives)


def _written(path: Path) -> float:
    """Return the time at which a file was written, or 0 if it is missing."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _error(store: Path, key: str) -> str | None:
    try:
        path = store / "errors" / f"{key}.json"
        return CELL_ERROR.read_text(read_inside(store, path), path).error
    except OSError:
        return None
    except Unreadable as error:
        return str(error)

"""The store: cells, errors and runs as files named by their content, written atomically."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from exitbench.errors import UserError
from exitbench.models.stored import NewerSchema, Unreadable
from exitbench.models.whole_file import sweep
from exitbench.store.attack_spec import as_specified
from exitbench.store.calibration_logits import HeldOut
from exitbench.store.cell import MOST_CELL, Cell
from exitbench.store.cell_error import CELL_ERROR, CellError
from exitbench.store.certificate import CERTIFICATE, Certificate, better, certificate_key, read_certificate
from exitbench.store.inside import check_folders, open_inside, read_inside, refuse_links, write_inside
from exitbench.store.run_record import RUN_RECORD, RunRecord, check_rule, left_out, read_run, run_name
from exitbench.store.trust_result import TRUST_RESULT, TrustResult, read_trust, sealed

_log = logging.getLogger(__name__)


class Cells(Protocol):
    """The interface through which a runner reads finished cells and writes new ones."""

    def read(self, key: str) -> Cell | None:
        """The cell, or None where there is none."""

    def write(self, cell: Cell) -> None:
        """Keep a finished cell."""

    def write_error(self, key: str, what: CellError) -> None:
        """Keep what went wrong in a cell that could not be finished."""


class Store:
    """A folder of results.

    ``cells/`` holds finished cells, ``errors/`` the errors of cells that failed (they are tried again by the next run),
    ``runs/`` the run records, ``trust/`` the trust checks' measurements, ``calibration/`` logits on held-out training images,
    ``certificates/`` what was proven, ``latency/`` measured latencies, ``quarantine/`` damaged files. Stores of several
    machines are joined by ``exitbench.store.merge``.

    Args:
        root: The folder; it is created if it does not exist.

    Raises:
        UserError: If ``root`` cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._named: set[str] = set()
        check_folders(root)
        try:
            for folder in ("cells", "errors", "runs"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
            sweep(root)
        except OSError as error:
            raise UserError(
                f"results cannot be written to {root}: {error.strerror or error}; choose another with --results"
            ) from error

    def state(self) -> dict[Path, tuple[int, int]]:
        """Return size (bytes) and time of change (ns) of every file: between two equal states nothing was written."""
        found: dict[Path, tuple[int, int]] = {}
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):
                at = path.lstat()
                found[path] = at.st_size, at.st_mtime_ns
        return found

    def has(self, key: str) -> bool:
        """Return whether a valid cell is in the store; a damaged one is moved to quarantine."""
        return self.read(key) is not None

    def read(self, key: str, *, images: bool = True) -> Cell | None:
        """Return the cell, or None if it is missing or damaged; a damaged one is moved to quarantine.

        Args:
            key: Content address.
            images: Whether to read counterexamples; verdicts need none, and without them any number of cells fits in memory.
        """
        path = self._cell(key)
        try:
            with open_inside(self.root, path, MOST_CELL) as file:
                return Cell.from_file(file, key, images=images, source=path)
        except FileNotFoundError:
            return None
        except Unreadable as error:
            self._set_aside(path, "cell", error)
            return None

    def write(self, cell: Cell) -> None:
        """Store a finished cell and delete its error, if there was one."""
        self._keep(cell.key, cell.to_bytes())

    def read_bytes(self, key: str) -> bytes | None:
        """Return the bytes of a cell's file, or None if there is none."""
        try:
            return read_inside(self.root, self._cell(key), MOST_CELL)
        except FileNotFoundError:
            return None

    def write_bytes(self, key: str, raw: bytes) -> None:
        """Store the file of a cell that was finished elsewhere.

        Raises:
            BadCell: If it is damaged, or has another key.
        """
        Cell.from_bytes(raw, key)
        self._keep(key, raw)

    def _keep(self, key: str, raw: bytes) -> None:
        self._write(self._cell(key), raw)
        self._error(key).unlink(missing_ok=True)

    def write_error(self, key: str, what: CellError) -> None:
        """Record the error of a cell; it stays missing and is tried again."""
        self._write(self._error(key), CELL_ERROR.text(what))

    def read_error(self, key: str) -> CellError | None:
        """What went wrong in the last try at a cell that is still missing; an error that cannot be read says so itself."""
        path = self._error(key)
        try:
            return CELL_ERROR.read_text(read_inside(self.root, path), path)
        except FileNotFoundError:
            return None
        except Unreadable as error:
            return CellError(attack="unknown", error=str(error))

    def write_probe(self, result: TrustResult) -> None:
        """Store the measurements of the trust checks and delete their error, if there was one."""
        self._write(self._probe(result.key), TRUST_RESULT.text(sealed(result)))
        self._error(result.key).unlink(missing_ok=True)

    def read_probe(self, key: str) -> TrustResult | None:
        """What the trust checks measured, or None where it is absent, damaged or of a newer schema.

        A damaged result is moved to quarantine.
        """
        path = self._probe(key)
        try:
            return read_trust(read_inside(self.root, path), path, key)
        except FileNotFoundError:
            return None
        except NewerSchema as error:
            _log.error("%s; the trust checks count as not run", error)
            return None
        except Unreadable as error:
            self._set_aside(path, "trust checks", error)
            return None

    def write_held_out(self, held: HeldOut) -> None:
        """Store a network's logits on the calibration split."""
        self._write(self._held_out(held.key), held.to_bytes())

    def read_held_out(self, key: str) -> HeldOut | None:
        """Return calibration logits, or None if missing or damaged; a damaged file is moved to quarantine."""
        path = self._held_out(key)
        try:
            return HeldOut.from_bytes(read_inside(self.root, path, MOST_CELL), key)
        except FileNotFoundError:
            return None
        except Unreadable as error:
            self._set_aside(path, "calibration logits", error)
            return None

    def write_certificate(self, certificate: Certificate) -> None:
        """Store what was proven of an evaluation, unless what is there proves more."""
        key = certificate_key(certificate)
        kept = better(certificate, self.read_certificate(key))
        self._write(self._certificate(key), CERTIFICATE.text(kept))

    def read_certificate(self, key: str) -> Certificate | None:
        """What was proven of an evaluation, or None where it is absent, damaged, or of other bounds; it is then left out."""
        path = self._certificate(key)
        try:
            return read_certificate(read_inside(self.root, path), path, key)
        except FileNotFoundError:
            return None
        except Unreadable as error:
            _log.error("%s; it counts as not there", error)
            return None

    def write_run(self, run: RunRecord) -> None:
        """Store a run record under the digest of its content."""
        self._write(self.root / "runs" / f"{run_name(run)}.json", RUN_RECORD.text(run))

    def runs(self) -> Iterator[RunRecord]:
        """All recorded runs, in the order of their names; see ``run_files``."""
        for _, record in self.run_files():
            yield record

    def run_files(self) -> Iterator[tuple[Path, RunRecord]]:
        """All recorded runs with their files, attacks named as specified; unreadable ones are left out and named once."""
        for path in sorted((self.root / "runs").glob("*.json")):
            try:
                record = read_run(path)
                check_rule(record, path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.leave_out(path, Unreadable(f"{path} cannot be read: {error.strerror or error}"))
            except Unreadable as error:
                self.leave_out(path, error)
            else:
                yield path, as_specified(record)

    def leave_out(self, path: object, why: Exception) -> None:
        """Name a run in the log that cannot be read, the first time."""
        if str(path) not in self._named:
            self._named.add(str(path))
            _log.error("%s", left_out(why))

    def _write(self, path: Path, content: bytes) -> None:
        write_inside(self.root, path, content)

    def _set_aside(self, path: Path, what: str, why: Exception) -> None:
        quarantine = self.root / "quarantine"
        try:
            quarantine.mkdir(exist_ok=True)
            refuse_links(self.root, path.parent)
            path.replace(quarantine / path.name)
        except (OSError, Unreadable):
            _log.error("damaged %s %s cannot be moved to %s (%s)", what, path.name, quarantine, why)
        else:
            _log.error("damaged %s %s moved to %s (%s); it will be computed again", what, path.name, quarantine, why)

    def _probe(self, key: str) -> Path:
        return self.root / "trust" / f"{key}.json"

    def _held_out(self, key: str) -> Path:
        return self.root / "calibration" / f"{key}.npz"

    def _certificate(self, key: str) -> Path:
        return self.root / "certificates" / f"{key}.json"

    def _cell(self, key: str) -> Path:
        return cell_path(self.root, key)

    def _error(self, key: str) -> Path:
        return self.root / "errors" / f"{key}.json"


def cell_path(root: Path, key: str) -> Path:
    """Return the path of the cell with this key in the store at ``root``."""
    return root / "cells" / key[:2] / f"{key}.npz"

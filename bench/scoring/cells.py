"""Reads the cells that a run record lists, and notices those that cannot be its own."""

from __future__ import annotations

from exitbench.models.stored import Unreadable
from exitbench.store.cell import Cell
from exitbench.store.fit import MOST_LOGITS, Fit
from exitbench.store.npz import TIMES
from exitbench.store.run_record import AttackEntry, RunRecord
from exitbench.store.store import Store, cell_path


class Misfit(Unreadable):
    """A cell is not one of the record that lists it.

    Attributes:
        record: the record, of which nothing can be said then.
    """

    def __init__(self, record: RunRecord, message: str) -> None:
        super().__init__(message)
        self.record = record


class RecordCells:
    """The cells of one record.

    Args:
        record: the record.
        store: that they are in.
    """

    def __init__(self, record: RunRecord, store: Store) -> None:
        self.record, self.store = record, store
        self._fit = Fit(record)

    def of(self, attack: AttackEntry) -> list[Cell]:
        """Return the stored cells of an attack, without images, in the order of their samples.

        Raises:
            Misfit: one of them has other samples, labels, exits or classes than the record's others, or unpacks to too much.
        """
        found, unpacked, size = [], 0, 0
        for at, key in enumerate(attack.keys):
            if (cell := self.store.read(key, images=False)) is None:
                continue
            path = cell_path(self.store.root, key)
            unpacked, size = unpacked + cell.logits.nbytes, size + path.lstat().st_size
            flaw = self._fit.flaw(attack, at, cell)
            if flaw is None and unpacked > max(MOST_LOGITS, TIMES * size):
                flaw = f"with those before it, its logits unpack from {size:,} bytes to {unpacked:,}"
            if flaw is not None:
                of = f"{self.record.model} ({self.record.training}) on {self.record.dataset}"
                raise Misfit(self.record, f"{path} does not fit the run of {of} that lists it: {flaw}")
            found.append(cell)
        return found


def leave_out(misfit: Misfit, store: Store) -> None:
    """Name the cell in the log, and that its run is left out."""
    store.leave_out(str(misfit), misfit)

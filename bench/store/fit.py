"""Whether a run record and the cells that it lists belong together: the same samples, labels, exits and classes throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from exitbench.models.spec import digest
from exitbench.store.cell import SCHEMA, SLICE, Cell, Ints
from exitbench.store.npz import FLOOR, TIMES
from exitbench.store.run_record import AttackEntry, RunRecord

MOST_LOGITS = FLOOR // 4
"""Largest logits of an attack on all samples, in bytes, that are read from a file which holds them in less than an eighth."""


@dataclass(frozen=True)
class Facts:
    """What is kept in mind of a cell that was read.

    Attributes:
        indices: of its samples.
        labels: of its samples, as bytes.
        inputs: the SHA-256 of its samples, as bytes.
        n_exits, n_classes: of its logits.
        weights: in its header.
        of: digest of weights, attack and seed in its header.
        key: the digest of these and of its inputs, which its name has to be.
        size: of its file in bytes; 0 where it does not matter.
        lacks_images: whether its counterexamples were left out.
    """

    indices: Ints
    labels: bytes
    inputs: bytes
    n_exits: int
    n_classes: int
    weights: str
    of: str
    key: str
    size: int
    lacks_images: bool


def facts_of(cell: Cell, size: int = 0, *, lacks_images: bool = False) -> Facts:
    """Return what is kept in mind of a cell."""
    header = cell.header
    about = {"weights": header["weights"], "attack": header["attack"], "seed": header["seed"]}
    key = digest({"schema": SCHEMA, "inputs": [row.tobytes().hex() for row in cell.inputs], **about})
    n_exits, _, n_classes = cell.logits.shape
    samples = (cell.indices, cell.labels.tobytes(), cell.inputs.tobytes())
    return Facts(*samples, n_exits, n_classes, header["weights"], digest(about), key, size, lacks_images)


@dataclass
class Fit:
    """The samples of one record, as the cells looked at so far tell them.

    Attributes:
        record: the record.
    """

    record: RunRecord

    def __post_init__(self) -> None:
        self._samples: dict[int, tuple[bytes, bytes]] = {}
        self._n_classes: int | None = None

    def flaw(self, attack: AttackEntry, at: int, cell: Cell | Facts) -> str | None:
        """Return why a cell cannot be the one at position ``at`` (0-based) of an attack; None where it can."""
        wanted = self._slice(at)
        if not np.array_equal(cell.indices, wanted) and not self._repeats(attack, at, cell.indices):
            return f"it is of samples {cell.indices[0]}-{cell.indices[-1]}, not {wanted[0]}-{wanted[-1]}"
        shape = (cell.n_exits, cell.n_classes) if isinstance(cell, Facts) else (cell.logits.shape[0], cell.logits.shape[2])
        self._n_classes = self._n_classes or shape[1]
        if shape != (self.record.n_exits, self._n_classes):
            return f"it has {shape[0]} exits and {shape[1]} classes, not {self.record.n_exits} and {self._n_classes}"
        samples = (cell.labels, cell.inputs) if isinstance(cell, Facts) else (cell.labels.tobytes(), cell.inputs.tobytes())
        if self._samples.setdefault(at, samples) != samples:
            return "its labels or its inputs are not those of the record's other cells"
        return None

    def data(self) -> str | None:
        """Return the digest of all inputs, as a record has it; None where some are not known."""
        slices = range(-(-self.record.n // SLICE))
        if any(at not in self._samples for at in slices):
            return None
        inputs = b"".join(self._samples[at][1] for at in slices)
        return digest([inputs[i : i + 32].hex() for i in range(0, len(inputs), 32)])

    def _repeats(self, attack: AttackEntry, at: int, indices: Ints) -> bool:
        """Whether the samples are those of another position with the same cell, as where images repeat."""
        same = (i for i, key in enumerate(attack.keys) if key == attack.keys[at])
        return any(np.array_equal(indices, self._slice(i)) for i in same)

    def _slice(self, at: int) -> Ints:
        return np.arange(at * SLICE, min((at + 1) * SLICE, self.record.n))


def misfits(record: RunRecord, facts: Callable[[str], Facts | None]) -> Iterator[str]:
    """Yield why cells that a record lists cannot be its own.

    Args:
        record: a record that was read.
        facts: returns those of the cell with a key; None where there is none.
    """
    fit = Fit(record)
    for attack in record.attacks:
        of = digest({"weights": record.weights, "attack": attack.spec, "seed": record.seed})
        unpacked = size = 0
        for at, key in enumerate(attack.keys):
            if (cell := facts(key)) is None:
                continue
            size += cell.size
            unpacked += 4 * cell.n_exits * len(cell.indices) * cell.n_classes
            if (flaw := fit.flaw(attack, at, cell)) is not None:
                yield f"cell {key[:12]} of {attack.name}: {flaw}"
            elif cell.of != of:
                yield f"cell {key[:12]} of {attack.name}: it is of other weights, another attack or another seed"
        if size and unpacked > max(MOST_LOGITS, TIMES * size):
            yield f"{attack.name}: its logits unpack from {size:,} bytes to {unpacked:,}"
    if fit.data() not in (None, record.data):
        yield f"the digest of their inputs is not {record.data[:12]}"

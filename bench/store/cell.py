"""Cells: one model, one slice of a dataset, one attack and one seed; the unit of work, caching and resuming."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from exitbench.models.spec import describe, digest
from exitbench.models.stored import Unreadable
from exitbench.store.attack_spec import is_bounded
from exitbench.store.cell_header import CellHeader, header_in
from exitbench.store.npz import TEXT, Kind, compressed_npz, read_arrays, text_of

if TYPE_CHECKING:  # reading cells back takes no attack's code
    from exitbench.attacks.base import Attack

SCHEMA = 1
"""Version of the format, part of every key; it is raised when the meaning of a stored field changes."""

SLICE = 32
"""Samples per cell. A killed run loses at most the slice in flight."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


MOST_CELL = 400_000_000
"""Largest file of a cell that is read, in bytes: 32 images of 3 x 1000 x 1000 have 384 million."""

MOST_LOGITS = 2**26
"""Largest logits of a cell in bytes: those of 32 samples at 20 exits with 21,000 classes have 54 million."""

TOLERANCE = {"Linf": 1e-6, "L2": 1e-5}
"""Distance by which an image may exceed its ball, for rounding."""


_KINDS = {
    "header": TEXT,
    "indices": Kind(np.int64, ("B",)),
    "labels": Kind(np.int64, ("B",)),
    "inputs": Kind(np.uint8, ("B", 32)),
    "logits": Kind(np.float32, ("K", "B", "classes"), MOST_LOGITS),
    "distances": Kind(np.float32, ("B",)),
    "passes": Kind(np.int64, (2,)),
    "broken_rows": Kind(np.int64, ("M",)),
    "counterexamples": Kind(np.float32, ("images", "C", "H", "W")),
}
"""The arrays of a cell: B samples, K exits, M broken rows."""


class BadCell(Unreadable):
    """A file is not a valid cell of this schema."""


def cell_key(weights: str, inputs: Sequence[str], attack: Attack, seed: int) -> str:
    """Return the content address of a cell: the SHA-256 over what determines its content, and nothing else.

    Args:
        weights: Digest of the weights.
        inputs: Hash of each sample's pixels and label.
        attack: The resolved attack, with its version.
        seed: Seed of the evaluation.
    """
    what = {"schema": SCHEMA, "weights": weights, "inputs": list(inputs), "attack": describe(attack), "seed": seed}
    return digest(what)


@dataclass(frozen=True)
class Cell:
    """The result of an attack on a slice, with all that is needed to check every verdict without the attack's code.

    Attributes:
        key: Content address.
        header: Model, weights, dataset, attack, seed; and provenance (device, versions, seconds), which is not part of the key.
        indices: ``(B,)``, sample indices in the split.
        labels: ``(B,)``, labels.
        inputs: ``(B, 32)`` bytes, SHA-256 of each clean sample.
        logits: ``(K, B, classes)``, logits of all exits on the candidates, under the plain fp32 model.
        distances: ``(B,)``, distances from the clean images.
        passes: ``(2,)``, forward and backward passes spent on the slice, summed over samples, children included.
        broken_rows: ``(M,)``, rows in which at least one exit is wrong.
        counterexamples: ``(M, C, H, W)``, the images of those rows. Clean cells, whose images are the dataset's, and cells from
            archives have none.
    """

    key: str
    header: dict[str, Any]
    indices: Ints
    labels: Ints
    inputs: npt.NDArray[np.uint8]
    logits: Floats
    distances: Floats
    passes: Ints
    broken_rows: Ints
    counterexamples: Floats

    def within(self, norm: str, eps: float, spec: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        """Return which images ``(B,)`` lie in the ball of the threat model that the distances were measured for.

        Every image of an attack ``spec`` that is bound to its ball was certified to lie in it: a cell cannot take it back.
        """
        return np.asarray((self.distances <= eps + TOLERANCE[norm]) | is_bounded(spec))

    @property
    def lacks_images(self) -> bool:
        """Whether counterexamples were left out, as in archives."""
        return len(self.counterexamples) < len(self.broken_rows)

    def to_bytes(self, *, compressed: bool = True) -> bytes:
        """Return an npz; every member has a CRC."""
        text = json.dumps({"schema": SCHEMA, "key": self.key, **self.header}, sort_keys=True)
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("key", "header")}
        arrays = {"header": np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
        if compressed:
            return compressed_npz(arrays)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(raw: bytes, key: str) -> Cell:
        """Read a cell with its counterexamples; see ``from_file``."""
        return Cell.from_file(io.BytesIO(raw), key)

    @staticmethod
    def from_file(file: BinaryIO, key: str, *, images: bool = True, source: object = None) -> Cell:
        """Read a cell.

        Args:
            file: A file opened for reading.
            key: Expected key.
            images: Whether to read counterexamples, which take nearly all of the space; else they are NaN, and take none.
            source: Name of the file, for messages; None for the key.

        Raises:
            BadCell: If the cell is truncated, damaged, of another schema or another key, or does not fit together.
        """
        try:
            arrays, sizes = read_arrays(file, _KINDS, () if images else ("counterexamples",))
            header = header_in(text_of(arrays.pop("header")), CellHeader, "cell", key, SCHEMA)
            if not images:
                arrays["counterexamples"] = np.broadcast_to(
                    np.float32(np.nan), [sizes[size] for size in ("images", "C", "H", "W")]
                )
            cell = Cell(key=key, header=header, **arrays)
            cell._check(sizes["images"])
        except MemoryError:
            raise
        except Exception as error:
            raise BadCell(f"{source or f'cell {key[:12]}'}: {error or type(error).__name__}") from error
        return cell

    def _check(self, images: int) -> None:
        n, m = len(self.indices), len(self.broken_rows)
        if not 1 <= n <= SLICE or not self.logits.size:
            raise BadCell(f"it has logits {self.logits.shape}; a cell has 1..{SLICE} samples")
        if self.indices[0] < 0 or not np.array_equal(self.indices, self.indices[0] + np.arange(n)):
            raise BadCell("its samples are not consecutive ones of a dataset")
        if self.labels.min() < 0 or self.labels.max() >= self.logits.shape[2]:
            raise BadCell(f"its labels are outside 0..{self.logits.shape[2] - 1}")
        if not np.isfinite(self.logits).all() or not np.isfinite(self.distances).all() or self.distances.min() < 0:
            raise BadCell("it has logits or distances that are no finite numbers, or negative distances")
        if self.passes.min() < 0:
            raise BadCell("it has negative numbers of passes")
        if m and (self.broken_rows[0] < 0 or self.broken_rows[-1] >= n or (np.diff(self.broken_rows) <= 0).any()):
            raise BadCell(f"its broken rows are not rising numbers of 0..{n - 1}")
        if images not in (0, m):
            raise BadCell(f"it has {images} images of {m} broken rows")

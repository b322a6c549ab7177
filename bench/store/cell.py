"""Cells: one model, one slice of a dataset, one attack and one seed; the unit of work, caching and resuming."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from exitbench.models.errors import InvalidValue
from exitbench.models.spec import describe, digest

if TYPE_CHECKING:  # reading cells back takes no attack's code
    from exitbench.attacks.base import Attack

SCHEMA = 1
"""Version of the format, part of every key; it is raised when the meaning of a stored field changes."""

SLICE = 32
"""Samples per cell. A killed run loses at most the slice in flight."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


TOLERANCE = {"Linf": 1e-6, "L2": 1e-5}
"""Distance by which an image may exceed its ball, for rounding."""


class BadCell(InvalidValue):
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

    def within(self, norm: str, eps: float) -> npt.NDArray[np.bool_]:
        """Return which images ``(B,)`` lie in the ball of the threat model that the distances were measured for."""
        return np.asarray(self.distances <= eps + TOLERANCE[norm])

    @property
    def lacks_images(self) -> bool:
        """Whether counterexamples were left out, as in archives."""
        return len(self.counterexamples) < len(self.broken_rows)

    def to_bytes(self, *, compressed: bool = True) -> bytes:
        """Return an npz; every member has a CRC."""
        buffer = io.BytesIO()
        text = json.dumps({"schema": SCHEMA, "key": self.key, **self.header}, sort_keys=True)
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("key", "header")}
        save = np.savez_compressed if compressed else np.savez
        save(buffer, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(raw: bytes, key: str) -> Cell:
        """Read a cell with its counterexamples; see ``from_file``."""
        return Cell.from_file(io.BytesIO(raw), key)

    @staticmethod
    def from_file(file: BinaryIO, key: str, *, images: bool = True) -> Cell:
        """Read a cell.

        Args:
            file: A file opened for reading.
            key: Expected key.
            images: Whether to read counterexamples, which take nearly all of the space.

        Raises:
            BadCell: If the cell is truncated, damaged, of another schema, or of another key.
        """
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files if images or name != "counterexamples"}
            header = json.loads(arrays.pop("header").tobytes())
            found = (header.pop("schema"), header.pop("key"))
            if found != (SCHEMA, key):
                raise BadCell(f"it is cell {found[1]} of schema {found[0]}")
            if not images:
                arrays["counterexamples"] = np.empty((0, 0, 0, 0), np.float32)
            cell = Cell(key=key, header=header, **arrays)
            cell._check_shapes()
        except Exception as error:
            raise BadCell(str(error) or type(error).__name__) from error
        return cell

    def _check_shapes(self) -> None:
        n = len(self.indices)
        per_sample = (self.labels, self.inputs, self.distances)
        if any(len(array) != n for array in per_sample) or self.logits.ndim != 3 or self.logits.shape[1] != n:
            raise BadCell("its arrays do not fit together")

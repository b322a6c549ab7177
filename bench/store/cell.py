"""A cell: one model x one slice of a dataset x one attack x one seed, the unit of work, caching and resuming."""

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
"""Bumped when the meaning of a stored field changes; part of every key."""

SLICE = 32
"""Samples per cell. A killed run loses at most the slice in flight."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


TOLERANCE = {"Linf": 1e-6, "L2": 1e-5}
"""How far rounding may carry an image over the edge of its ball."""


class BadCell(InvalidValue):
    """A file that is not a whole cell of this schema."""


def cell_key(weights: str, inputs: Sequence[str], attack: Attack, seed: int) -> str:
    """Content address of a cell: SHA-256 over what decides its content, and nothing else.

    Args:
        weights: digest of the weights.
        inputs: hash of each sample's pixels and label.
        attack: resolved, with its hand-bumped version.
        seed: of the evaluation.
    """
    what = {"schema": SCHEMA, "weights": weights, "inputs": list(inputs), "attack": describe(attack), "seed": seed}
    return digest(what)


@dataclass(frozen=True)
class Cell:
    """What one attack did to one slice, with enough to re-check every verdict without the attack's code.

    Attributes:
        key: content address.
        header: model, weights, dataset, attack, seed; and provenance (device, versions, seconds), which is no part of the key.
        indices: ``(B,)`` sample indices in the split.
        labels: ``(B,)``.
        inputs: ``(B, 32)`` bytes, SHA-256 of each clean sample.
        logits: ``(K, B, classes)`` of the candidates under the plain fp32 model, all exits.
        distances: ``(B,)`` from the clean image.
        passes: ``(2,)`` forward and backward sample-passes spent on the slice, children included.
        broken_rows: ``(M,)`` rows in which at least one exit is wrong.
        counterexamples: ``(M, C, H, W)`` the images of those rows (none for clean cells, whose images are the dataset's); or
            none of them, in a cell that was handed on for its figures alone.
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
        """Which images ``(B,)`` lie in the ball of the threat model that the distances were measured for."""
        return np.asarray(self.distances <= eps + TOLERANCE[norm])

    @property
    def lacks_images(self) -> bool:
        """Whether its counterexamples were left out."""
        return len(self.counterexamples) < len(self.broken_rows)

    def to_bytes(self, *, compressed: bool = True) -> bytes:
        """An npz; every member carries a CRC."""
        buffer = io.BytesIO()
        text = json.dumps({"schema": SCHEMA, "key": self.key, **self.header}, sort_keys=True)
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("key", "header")}
        save = np.savez_compressed if compressed else np.savez
        save(buffer, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(raw: bytes, key: str) -> Cell:
        """Read a whole cell back; see ``from_file``."""
        return Cell.from_file(io.BytesIO(raw), key)

    @staticmethod
    def from_file(file: BinaryIO, key: str, *, images: bool = True) -> Cell:
        """Read a cell back.

        Args:
            file: opened for reading.
            images: whether with its counterexamples, which take nearly all of the room; without, there are none in it.

        Raises:
            BadCell: truncated, damaged, of another schema, or of another key.
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

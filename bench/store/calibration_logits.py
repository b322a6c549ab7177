"""Logits on the calibration split, stored so that thresholds can be set again without the network or the data."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.models.spec import digest
from exitbench.models.stored import Unreadable
from exitbench.store.cell import Floats
from exitbench.store.cell_header import HeldOutHeader, header_in
from exitbench.store.npz import TEXT, Kind, read_arrays, text_of

SCHEMA = 1
"""Version of the format, part of every key; it is raised when the meaning of a stored field changes."""


_KINDS = {"header": TEXT, "inputs": Kind(np.uint8, ("N", 32)), "logits": Kind(np.float32, ("K", "N", "classes"))}


class BadHeldOut(Unreadable):
    """A file does not hold valid calibration logits of this schema."""


def held_out_key(model: str, weights: str, dataset: str) -> str:
    """Return the content address of a network's logits on the calibration split of a dataset."""
    return digest({"schema": SCHEMA, "model": model, "weights": weights, "dataset": dataset, "split": "calibration"})


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class HeldOut:
    """The logits of a network on the calibration split: training images held out of ``bench train``, never test images.

    Attributes:
        key: Content address.
        header: Model, weights, dataset and source of the pixels.
        inputs: ``(N, 32)`` bytes, SHA-256 of each image and label.
        logits: ``(K, N, classes)``, logits of all exits.
    """

    key: str
    header: dict[str, Any]
    inputs: npt.NDArray[np.uint8]
    logits: Floats

    def input_hashes(self) -> list[str]:
        """Return the SHA-256 (hex) of each image and label, as ``exitbench.data.split.Batch`` does."""
        return [row.tobytes().hex() for row in self.inputs]

    def to_bytes(self) -> bytes:
        """Return a compressed npz; every member has a CRC."""
        buffer = io.BytesIO()
        text = json.dumps({"schema": SCHEMA, "key": self.key, **self.header}, sort_keys=True)
        header = np.frombuffer(text.encode(), dtype=np.uint8)
        np.savez_compressed(buffer, header=header, inputs=self.inputs, logits=self.logits)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(raw: bytes, key: str) -> HeldOut:
        """Read calibration logits.

        Raises:
            BadHeldOut: If the file is truncated, damaged, of another schema, or of another key.
        """
        try:
            arrays, _ = read_arrays(io.BytesIO(raw), _KINDS)
            header = header_in(text_of(arrays.pop("header")), HeldOutHeader, "logits", key, SCHEMA)
            if not np.isfinite(arrays["logits"]).all() or not arrays["logits"].size:
                raise BadHeldOut("its logits are no finite numbers, or there are none")
        except MemoryError:
            raise
        except Exception as error:
            raise BadHeldOut(str(error) or type(error).__name__) from error
        return HeldOut(key, header, **arrays)

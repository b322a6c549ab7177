"""Logits on the calibration split, stored so that thresholds can be set again without the network or the data."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.models.spec import digest
from exitbench.store.cell import Floats

SCHEMA = 1
"""Version of the format, part of every key; it is raised when the meaning of a stored field changes."""


class BadHeldOut(ValueError):
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
            with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
                header = json.loads(stored["header"].tobytes())
                inputs, logits = stored["inputs"], stored["logits"]
            found = (header.pop("schema"), header.pop("key"))
            if found != (SCHEMA, key):
                raise BadHeldOut(f"they are {found[1]} of schema {found[0]}")
            if logits.ndim != 3 or inputs.shape != (logits.shape[1], 32) or not np.isfinite(logits).all():
                raise BadHeldOut("its arrays do not fit together")
        except Exception as error:
            raise BadHeldOut(str(error) or type(error).__name__) from error
        return HeldOut(key, header, inputs, logits)

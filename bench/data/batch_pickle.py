"""Reads the pickled batches of CIFAR without running anything that a pickle may name.

The files hold a dictionary of text, lists, whole numbers and one numpy array of bytes. An array is described in the pickle by
three functions of numpy; stand-ins that only keep what they are given take their place, and whatever else is named is refused.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.errors import UserError

MOST_BYTES = 200_000_000
"""Size of a file; CIFAR's largest has 155 MB."""


class Type:
    """Stands for ``numpy.dtype``; it keeps the code of the type."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order, which bytes do not have."""


class Array:
    """Stands for ``numpy.ndarray``.

    Attributes:
        shape: Its shape.
        raw: Its bytes, of one whole number each, rows first.
    """

    shape: tuple[int, ...] = ()
    raw: bytes = b""

    def __setstate__(self, state: object) -> None:
        """Take over the state that numpy writes: version, shape, type, order of columns, and bytes.

        Raises:
            pickle.UnpicklingError: If it is another state, or the bytes do not fit the shape.
        """
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array has another state than numpy writes")
        _, shape, kind, by_columns, raw = state
        is_shape = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
        is_bytes = isinstance(kind, Type) and kind.code in ("u1", b"u1", "|u1") and not by_columns
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not (is_shape and is_bytes and isinstance(raw, bytes) and math.prod(shape) == len(raw)):
            raise pickle.UnpicklingError("an array is not of bytes, or does not fit its shape")
        self.shape, self.raw = shape, raw

    def values(self) -> npt.NDArray[np.uint8]:
        """Return the numbers in their shape."""
        return np.frombuffer(self.raw, dtype=np.uint8).reshape(self.shape)


def _empty_array(*_: object) -> Array:
    return Array()


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes are written in another encoding than Latin-1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Type,
    ("_codecs", "encode"): _encoded,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the stand-ins alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch of CIFAR does")
        return _STAND_INS[module, name]


def read_batch(path: Path) -> dict[str, Any]:
    """Return the dictionary of a batch; arrays in it are of class ``Array``.

    Raises:
        UserError: If the file cannot be read, is too large, or holds anything but text, lists, numbers and arrays of bytes.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes; a batch of CIFAR has at most {MOST_BYTES:,}")
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"{path} is not a readable batch of CIFAR ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a batch of CIFAR: it holds a {type(content).__name__}")
    return content

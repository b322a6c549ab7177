"""MNIST in torchvision's layout, gzipped or not: ``mnist/MNIST/raw`` or ``MNIST/raw`` in the data directory."""

from __future__ import annotations

import gzip
import math
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from exitbench.data.download import DataUnavailable, fetch
from exitbench.data.split import Split
from exitbench.errors import UserError

_FILES = {"train": "train", "calibration": "train", "test": "t10k"}
_MOST, _SIDE = 100_000, 28
N_CALIBRATION = 2_000  # the last of the 60,000 training images


def load_mnist(split: str, root: Path, *, download: bool) -> Split:
    """Load a split of MNIST; ``calibration`` is held out of the training images.

    Args:
        split: ``train``, ``calibration`` or ``test``.
        root: Data directory.
        download: Whether to download the data if they are missing.

    Raises:
        UserError: If files are unreadable.
        DataUnavailable: If the data are missing and cannot be downloaded.
    """
    prefix = _FILES[split]
    folder = _folder(root, prefix, download)
    images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)[:, None]
    labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1).astype(np.int64)
    if split != "test":
        held_out = slice(len(labels) - N_CALIBRATION, None)
        rows = held_out if split == "calibration" else slice(0, len(labels) - N_CALIBRATION)
        images, labels = images[rows], labels[rows]
    return Split("mnist", split, images, labels, 10, "original idx files")


def _folder(root: Path, prefix: str, download: bool) -> Path:
    for folder in (root / "mnist" / "MNIST" / "raw", root / "MNIST" / "raw"):
        stem = folder / f"{prefix}-images-idx3-ubyte"
        if stem.is_file() or stem.with_suffix(".gz").is_file():
            return folder
    if not download:
        raise DataUnavailable(f"no MNIST in {root} (looked for mnist/MNIST/raw and MNIST/raw)")
    from torchvision.datasets import MNIST

    folder = root / "mnist" / "MNIST" / "raw"
    for name, md5 in MNIST.resources:
        fetch([mirror + name for mirror in MNIST.mirrors], md5, folder / name)
    return folder


def _read_idx(folder: Path, name: str, n_dims: int) -> npt.NDArray[np.uint8]:
    """Read an idx file of bytes (the format is at the end of LeCun's MNIST page), gzipped or not."""
    plain, zipped = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else zipped
    try:
        with path.open("rb") as raw, gzip.open(raw) if path == zipped else nullcontext(raw) as file:
            return _read_array(path, file, n_dims)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not readable ({error})") from error


class _Readable(Protocol):
    """A file, zipped or not."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""


def _read_array(path: Path, file: _Readable, n_dims: int) -> npt.NDArray[np.uint8]:
    """Read as many bytes as the header says, which must be plausible: a zipped file may go on for gigabytes."""
    head = file.read(4 + 4 * n_dims)
    if len(head) < 4 + 4 * n_dims or head[:4] != bytes((0, 0, 8, n_dims)):
        raise UserError(f"{path} is not an idx file of bytes with {n_dims} dimensions")
    n, *sides = (int.from_bytes(head[4 + 4 * d : 8 + 4 * d], "big") for d in range(n_dims))
    if n > _MOST or sides not in ([], [_SIDE, _SIDE]):
        raise UserError(
            f"{path} says that it holds {(n, *sides)} bytes; MNIST has images of {_SIDE}x{_SIDE}, and at most {_MOST:,} are read"
        )
    size = n * math.prod(sides)
    raw = file.read(size + 1)  # one more than there should be
    if len(raw) != size:
        held = "more" if len(raw) > size else len(raw)
        raise UserError(f"{path} should hold {(n, *sides)} bytes, it holds {held}; it is truncated or damaged")
    return np.frombuffer(raw, dtype=np.uint8).reshape(n, *sides)

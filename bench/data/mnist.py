"""MNIST in torchvision's layout, gzipped or not: ``mnist/MNIST/raw`` or ``MNIST/raw`` in the data directory."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.data.download import DataUnavailable, fetch
from exitbench.data.split import Split
from exitbench.errors import UserError

_FILES = {"train": "train", "calibration": "train", "test": "t10k"}
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
        raw = path.read_bytes() if path == plain else gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not readable ({error})") from error
    header = 4 + 4 * n_dims
    if len(raw) < header or raw[:4] != bytes((0, 0, 8, n_dims)):
        raise UserError(f"{path} is not an idx file of bytes with {n_dims} dimensions")
    shape = tuple(int.from_bytes(raw[4 + 4 * d : 8 + 4 * d], "big") for d in range(n_dims))
    if len(raw) - header != math.prod(shape):
        raise UserError(f"{path} should hold {shape} bytes, it holds {len(raw) - header}; it is truncated or damaged")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)

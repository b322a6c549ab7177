"""MNIST and Fashion-MNIST in torchvision's layout, gzipped or not.

They are looked for in ``mnist/MNIST/raw`` or ``MNIST/raw``, and ``fashion_mnist/FashionMNIST/raw`` or ``FashionMNIST/raw``, in
the data directory.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from exitbench.data.download import DataUnavailable, fetch
from exitbench.data.original_files import rows_of
from exitbench.data.split import Split
from exitbench.errors import UserError

_FILES = {"train": "train", "calibration": "train", "test": "t10k"}
_MOST, _SIDE = 100_000, 28


@dataclass(frozen=True)
class Originals:
    """The original files of a dataset in MNIST's format.

    Attributes:
        dataset: Name of the dataset.
        title: Its name in messages.
        folder: torchvision's folder of the files.
        mirrors: Addresses that end with a slash; the name of a file follows.
        md5: MD5 (hex) by the name of the file, as torchvision publishes them.
    """

    dataset: str
    title: str
    folder: str
    mirrors: Sequence[str]
    md5: Mapping[str, str]


MNIST = Originals(
    "mnist",
    "MNIST",
    "MNIST/raw",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)

FASHION_MNIST = Originals(
    "fashion_mnist",
    "Fashion-MNIST",
    "FashionMNIST/raw",
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def load_mnist(split: str, root: Path, *, download: bool, originals: Originals = MNIST) -> Split:
    """Load a split of MNIST, or of a dataset in its format; ``calibration`` is held out of the training images.

    Args:
        split: ``train``, ``calibration`` or ``test``.
        root: Data directory.
        download: Whether to download the data if they are missing.
        originals: The files of the dataset.

    Raises:
        UserError: If files are unreadable.
        DataUnavailable: If the data are missing and cannot be downloaded.
    """
    prefix = _FILES[split]
    folder = _folder(root, prefix, download, originals)
    images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)[:, None]
    labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1).astype(np.int64)
    rows = rows_of(split, len(labels))
    return Split(originals.dataset, split, images[rows], labels[rows], 10, "original idx files")


def _folder(root: Path, prefix: str, download: bool, originals: Originals) -> Path:
    folders = (root / originals.dataset / originals.folder, root / originals.folder)
    for folder in folders:
        stem = folder / f"{prefix}-images-idx3-ubyte"
        if stem.is_file() or stem.with_suffix(".gz").is_file():
            return folder
    if not download:
        looked = " and ".join(str(folder.relative_to(root)) for folder in folders)
        raise DataUnavailable(f"no {originals.title} in {root} (looked for {looked})")
    for name, md5 in originals.md5.items():
        fetch([mirror + name for mirror in originals.mirrors], md5, folders[0] / name)
    return folders[0]


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

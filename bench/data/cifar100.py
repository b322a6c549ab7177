"""CIFAR-100 with its 100 fine labels: ``cifar-100-python/`` in ``cifar100/`` or the data directory, torchvision's layout."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.data.batch_pickle import Array, read_batch
from exitbench.data.download import DataUnavailable, fetch
from exitbench.data.original_files import checked, rows_of
from exitbench.data.split import Split
from exitbench.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
MD5 = {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
"""As torchvision publishes them."""

_FOLDER = "cifar-100-python"


def load_cifar100(split: str, root: Path, *, download: bool) -> Split:
    """Load a split of CIFAR-100; ``calibration`` is held out of the training images.

    Args:
        split: ``train``, ``calibration`` or ``test``.
        root: Data directory.
        download: Whether to download the data if they are missing.

    Raises:
        UserError: If a file is not the original, or is unreadable.
        DataUnavailable: If the data are missing and cannot be downloaded.
    """
    official = "test" if split == "test" else "train"
    path = checked(_folder(root, download) / official, MD5[official], "CIFAR-100")
    images, labels = _read(path)
    rows = rows_of(split, len(labels))
    return Split("cifar100", split, images[rows], labels[rows], 100, _FOLDER)


def _folder(root: Path, download: bool) -> Path:
    for folder in (root / "cifar100" / _FOLDER, root / _FOLDER):
        if folder.is_dir():
            return folder
    if not download:
        raise DataUnavailable(f"no CIFAR-100 in {root} (looked for cifar100/{_FOLDER} and {_FOLDER})")
    home = root / "cifar100"
    archive = home / f"{_FOLDER}.tar.gz"
    fetch([URL], ARCHIVE_MD5, archive)
    with tempfile.TemporaryDirectory(dir=home, prefix=".cifar-") as unpacked, tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
        (Path(unpacked) / _FOLDER).rename(home / _FOLDER)
    archive.unlink()
    return home / _FOLDER


def _read(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return images ``(N, 3, 32, 32)`` and fine labels ``(N,)`` of an official file."""
    content = read_batch(path)
    images, labels = content.get("data"), content.get("fine_labels")
    if not isinstance(images, Array) or images.shape[1:] != (3072,) or not isinstance(labels, list):
        raise UserError(f"{path} holds no array `data` (N, 3072) and list `fine_labels`")
    if len(labels) != images.shape[0] or not all(type(label) is int and 0 <= label < 100 for label in labels):
        raise UserError(f"{path} has {images.shape[0]} images, and `fine_labels` that are not as many numbers from 0 to 99")
    return images.values().reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)

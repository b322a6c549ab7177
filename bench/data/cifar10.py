"""CIFAR-10 from the official python batches or from image parquet files.

The first of these that exists in the data directory is read:

* ``cifar-10-batches-py/`` or ``cifar10/cifar-10-batches-py/`` (torchvision's layout, digest-checked by torchvision),
* ``cifar10/<split>*.parquet`` or ``cifar10/plain_text/<split>*.parquet`` (Hugging Face),
* ``cifar10-lossless/<split>.parquet``: the original pixels of the first images of the test set and of each training batch,
* for training only, ``cifar10-jpeg/train.parquet``, with original pixels from ``cifar10-lossless`` where these exist.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.data.download import DataUnavailable, fetch
from exitbench.data.image_parquet import number_of_rows, read_image_parquet
from exitbench.data.parquet_bounds import MOST_ROWS
from exitbench.data.split import Split
from exitbench.errors import UserError

BATCH = 10_000  # training images per official batch
CALIBRATION_PER_BATCH = 400  # the first of each training batch are held out
_BATCHES = "cifar-10-batches-py"

Images = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Wanted = Callable[[Ints], Mask]
"""Selects samples by their official index."""


def load_cifar10(split: str, root: Path, *, download: bool) -> Split:
    """Load a split of CIFAR-10; ``calibration`` is held out of the training images.

    Args:
        split: ``train``, ``calibration`` or ``test``.
        root: Data directory.
        download: Whether to download the data if they are missing.

    Raises:
        UserError: If files are unreadable.
        DataUnavailable: If the data are missing and cannot be downloaded.
    """
    official = "test" if split == "test" else "train"
    images, labels, source = _read(official, root, _WANTED[split], download)
    return Split("cifar10", split, images.transpose(0, 3, 1, 2), labels, 10, source)


def _held_out(indices: Ints) -> Mask:
    return indices % BATCH < CALIBRATION_PER_BATCH


_WANTED: dict[str, Wanted] = {
    "test": lambda indices: np.ones(len(indices), dtype=np.bool_),
    "calibration": _held_out,
    "train": lambda indices: ~_held_out(indices),
}


def _read(official: str, root: Path, wanted: Wanted, download: bool) -> tuple[Images, Ints, str]:
    """Return images ``(N, 32, 32, 3)``, labels, and their source."""
    for folder in (root, root / "cifar10"):
        if (folder / _BATCHES).is_dir():
            return _read_batches(folder, official, wanted)
    for folder in (root / "cifar10", root / "cifar10" / "plain_text"):
        if files := sorted(folder.glob(f"{official}*.parquet")):
            return _read_parquet(files, official, wanted)
    lossless = root / "cifar10-lossless" / f"{official}.parquet"
    jpeg = root / "cifar10-jpeg" / "train.parquet"
    if official == "train" and jpeg.is_file():
        return _read_mended(jpeg, lossless, wanted)
    if lossless.is_file():
        images, labels, _ = _read_lossless(lossless, official, wanted)
        return images, labels, "cifar10-lossless"
    if not download:
        raise DataUnavailable(f"no CIFAR-10 {official} images in {root} (looked for {_BATCHES}, cifar10, cifar10-lossless)")
    _download(root)
    return _read(official, root, wanted, download=False)


def _read_batches(folder: Path, official: str, wanted: Wanted) -> tuple[Images, Ints, str]:
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(str(folder), train=official == "train", download=False)
    except RuntimeError as error:
        raise UserError(f"{folder / _BATCHES} is incomplete or corrupt; delete the folder to download it again") from error
    rows = wanted(np.arange(len(dataset.targets)))
    return dataset.data[rows], np.asarray(dataset.targets, dtype=np.int64)[rows], _BATCHES


def _read_parquet(files: Sequence[Path], official: str, wanted: Wanted) -> tuple[Images, Ints, str]:
    if (total := sum(map(number_of_rows, files))) > MOST_ROWS:
        raise UserError(f"{files[0].parent} says that it has {total:,} {official} images; at most {MOST_ROWS:,} are read")
    parts, before = [], 0
    for file in files:

        def among(rows: Ints, before: int = before) -> Mask:
            return wanted(rows + before)

        images, labels, _ = read_image_parquet(file, lossy_allowed=official == "train", wanted=among)
        parts.append((images, labels))
        before += number_of_rows(file)
    if len(parts) == 1:
        return *parts[0], "image parquet"
    images, labels = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    return images, labels, "image parquet"


def _read_lossless(path: Path, official: str, wanted: Wanted) -> tuple[Images, Ints, Ints]:
    """Return images, labels and official indices; each fifth of the training file is the start of one official batch."""
    per_batch = number_of_rows(path) // 5
    if official == "train" and not per_batch:
        raise UserError(f"{path} has fewer than five images; each fifth of it is the start of one official batch")

    def official_index(rows: Ints) -> Ints:
        return rows if official == "test" else BATCH * (rows // per_batch) + rows % per_batch

    images, labels, rows = read_image_parquet(path, lossy_allowed=False, wanted=lambda rows: wanted(official_index(rows)))
    return images, labels, official_index(rows)


def _read_mended(jpeg: Path, lossless: Path, wanted: Wanted) -> tuple[Images, Ints, str]:
    """Return the JPEG training images, with the original pixels where ``lossless`` has them."""
    images, labels, indices = read_image_parquet(jpeg, lossy_allowed=True, wanted=wanted)
    if not lossless.is_file():
        return images, labels, "cifar10-jpeg"
    originals, original_labels, original_indices = _read_lossless(lossless, "train", wanted)
    places = np.searchsorted(indices, original_indices)
    if not np.array_equal(labels[places], original_labels):
        raise UserError(f"{jpeg} and {lossless} do not list the same images in official order")
    images[places] = originals
    return images, labels, "cifar10-jpeg + cifar10-lossless"


def _download(root: Path) -> None:
    from torchvision.datasets import CIFAR10

    archive = root / CIFAR10.filename
    fetch([CIFAR10.url], CIFAR10.tgz_md5, archive)
    with tempfile.TemporaryDirectory(dir=root, prefix=".cifar-") as unpacked, tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
        (Path(unpacked) / _BATCHES).rename(root / _BATCHES)
    archive.unlink()

"""SVHN's cropped digits in torchvision's layout: ``{train,test}_32x32.mat`` in ``svhn/`` or the data directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.data.original_files import find_or_fetch, rows_of
from exitbench.data.split import Split
from exitbench.errors import UserError

URL = "http://ufldl.stanford.edu/housenumbers/"
MD5 = {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"}
"""As torchvision publishes them."""


def load_svhn(split: str, root: Path, *, download: bool) -> Split:
    """Load a split of SVHN; ``calibration`` is held out of the training images, the "extra" ones are not used.

    Args:
        split: ``train``, ``calibration`` or ``test``.
        root: Data directory.
        download: Whether to download the data if they are missing.

    Raises:
        UserError: If a file is not the original, or is unreadable.
        DataUnavailable: If the data are missing and cannot be downloaded.
    """
    name = "test_32x32.mat" if split == "test" else "train_32x32.mat"
    path = find_or_fetch(root, "svhn", name, URL + name, MD5[name], title="SVHN", download=download)
    images, labels = _read(path)
    rows = rows_of(split, len(labels))
    return Split("svhn", split, images[rows], labels[rows], 10, "original mat files")


def _read(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return images ``(N, 3, 32, 32)`` and labels ``(N,)``; the file has the digit 0 as label 10, and images last."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=("X", "y"))
        images, labels = content["X"], content["y"].ravel().astype(np.int64)
    except Exception as error:  # scipy raises whatever its reader comes upon
        raise UserError(f"{path} is not a readable mat file of images X and labels y ({error})") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.shape[3] != len(labels):
        raise UserError(
            f"{path} holds X {images.shape} ({images.dtype}) and y ({len(labels)},), not images of 32x32x3 and labels"
        )
    labels[labels == 10] = 0
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels

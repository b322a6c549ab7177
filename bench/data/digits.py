"""``digits``: scikit-learn's 8x8 handwritten digits, the default dataset, which needs no download.

Images are enlarged to the model's input by repeating pixels (exact in floating point, so that digests agree on every machine),
centred on black if the sides are not multiples of 8, and repeated over the channels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.data.split import Split
from exitbench.errors import UserError

_SIZES = {"test": 500, "calibration": 200}  # of 1,797; the rest is train
_SEED = 0


def load_digits(split: str, input_shape: tuple[int, int, int]) -> Split:
    """Load a split of ``digits``, enlarged to ``input_shape``; a fixed permutation assigns the 1,797 images to splits.

    Raises:
        UserError: If ``input_shape`` is smaller than 8x8.
    """
    pixels, labels = _originals()
    # RandomState's streams are frozen by numpy's compatibility policy; Generator's are not.
    order = np.random.RandomState(_SEED).permutation(len(labels))
    rows = order[_bounds(split, len(order))]
    images = _enlarged((pixels[rows].reshape(-1, 8, 8) / 16).astype(np.float32), input_shape)
    return Split("digits", split, images, labels[rows].astype(np.int64), 10, "scikit-learn")


def _originals() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the pixels ``(1797, 64)`` in 0..16 and the labels ``(1797,)``.

    They are read from scikit-learn's file, where it is: importing its loader takes two seconds, for all of its datasets.
    """
    installed = find_spec("sklearn")
    for folder in (installed.submodule_search_locations or ()) if installed else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits as sklearn_digits

    pixels, labels = sklearn_digits(return_X_y=True)
    return pixels, labels.astype(np.float64)


def _bounds(split: str, n: int) -> slice:
    test, calibration = _SIZES["test"], _SIZES["calibration"]
    return {
        "test": slice(0, test),
        "calibration": slice(test, test + calibration),
        "train": slice(test + calibration, n),
    }[split]


def _enlarged(images: npt.NDArray[np.float32], input_shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    channels, height, width = input_shape
    if min(height, width) < 8:
        raise UserError(f"digits are 8x8; the model's input {height}x{width} is smaller")
    larger = images.repeat(height // 8, axis=1).repeat(width // 8, axis=2)
    top, left = (height - larger.shape[1]) // 2, (width - larger.shape[2]) // 2
    out = np.zeros((len(images), channels, height, width), dtype=np.float32)
    out[:, :, top : top + larger.shape[1], left : left + larger.shape[2]] = larger[:, None]
    return out

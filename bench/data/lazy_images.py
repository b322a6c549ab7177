"""Images that are read when they are needed, a slice at a time, so that a dataset of any size takes the memory of a slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class LazyImages:
    """Images that are sliced like an array ``(N, C, H, W)``.

    Attributes:
        shape: ``(N, C, H, W)``.
        dtype: uint8 in 0..255, or float32 in [0, 1].
        read: Returns the images of a range of samples as ``(B, C, H, W)``; it raises ``UserError`` if one cannot be read.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[range], Pixels]

    @property
    def ndim(self) -> int:
        """The number of dimensions, as of an array."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Pixels:
        return self.read(range(len(self))[rows])

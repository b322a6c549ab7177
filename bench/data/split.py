"""A split of a dataset: labels in memory, images in memory or read slice by slice, served as float batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from exitbench.data.lazy_images import LazyImages
from exitbench.errors import UserError

_HASHED = 32
"""Images in memory at a time, where all of a split are hashed."""


@dataclass(frozen=True)
class Batch:
    """A batch of consecutive samples.

    Attributes:
        x: Images ``(B, C, H, W)``, float32 in [0, 1].
        y: Labels ``(B,)``, int64.
        indices: Index of each sample in the split.
    """

    x: Tensor
    y: Tensor
    indices: tuple[int, ...]

    def input_hashes(self) -> list[str]:
        """Return the SHA-256 (hex) of each sample's float32 pixels and label, which identifies what a verdict is about."""
        pixels = self.x.cpu().contiguous().numpy()
        labels = self.y.cpu().numpy().astype("<i8")
        return [
            hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest() for image, label in zip(pixels, labels, strict=True)
        ]


@dataclass(frozen=True)
class Split:
    """A split of a dataset.

    Attributes:
        dataset: Name of the dataset.
        name: ``train``, ``calibration`` or ``test``.
        images: Images ``(N, C, H, W)``, uint8 in 0..255 or float32 in [0, 1]; lazy ones are read when they are needed.
        labels: Labels ``(N,)``, int64 in 0..n_classes - 1.
        n_classes: Number of classes; None where the data do not tell it.
        source: The file or package that the pixels come from.

    Raises:
        UserError: If shapes do not match, labels are out of range, or pixels are NaN or out of range.
    """

    dataset: str
    name: str
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32] | LazyImages
    labels: npt.NDArray[np.int64]
    n_classes: int | None
    source: str

    def __post_init__(self) -> None:
        where = f"{self.dataset} {self.name} ({self.source})"
        if self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise UserError(f"{where}: images {self.images.shape} and labels {self.labels.shape} do not fit together")
        if self.labels.size:
            low, high = int(self.labels.min()), int(self.labels.max())
            if low < 0 or (self.n_classes is not None and high >= self.n_classes):
                allowed = "at least 0" if self.n_classes is None else f"0..{self.n_classes - 1}"
                raise UserError(f"{where}: labels must be {allowed}, found {low}..{high}")
        if isinstance(self.images, LazyImages) or self.images.dtype == np.uint8:
            return
        if not bool(((self.images >= 0) & (self.images <= 1)).all()):
            raise UserError(f"{where}: pixels must be numbers in [0, 1]")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def input_hashes(self, n: int | None = None) -> list[str]:
        """Return the SHA-256 (hex) of the first ``n`` samples, None for all of them; see ``Batch.input_hashes``."""
        stop = len(self) if n is None else min(n, len(self))
        starts = range(0, stop, _HASHED)
        return [text for start in starts for text in self.batch(start, min(start + _HASHED, stop)).input_hashes()]

    def digest(self) -> str:
        """Return the SHA-256 (hex) over the hashes of all inputs and labels."""
        return hashlib.sha256("".join(self.input_hashes()).encode()).hexdigest()

    def batch(self, start: int, stop: int) -> Batch:
        """Return the samples ``start..stop - 1`` as a batch; it ends with the split."""
        pixels = torch.tensor(self.images[start:stop])  # a copy: memory-mapped or zipped files are read-only
        x = pixels.float().div(255) if pixels.dtype == torch.uint8 else pixels
        return Batch(x, torch.tensor(self.labels[start:stop]), tuple(range(start, min(stop, len(self)))))


@dataclass(frozen=True)
class Samples:
    """The samples of an evaluation: the first ``n`` of a split."""

    split: Split
    n: int

    def slices(self, size: int) -> Iterator[Batch]:
        """Yield them in slices of fixed bounds, so that a larger n finds a smaller one's whole slices done."""
        for start in range(0, self.n, size):
            yield self.split.batch(start, min(start + size, self.n))

"""Random numbers of training: functions of the seed, the image and how often it was shown, with the same bits on every device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from exitbench.attacks.draws import uniform
from exitbench.attacks.noise import Noise

Rows = Tensor | slice
"""Rows of a batch: whole numbers ``(n,)`` or a slice."""


class Draws(Protocol):
    """The random numbers of one batch of B images."""

    def offsets(self, choices: int) -> Tensor:
        """Draw whole numbers ``(2, B)`` in 0..choices - 1: the top and left edge of each crop."""
        ...

    def mirrored(self) -> Tensor:
        """Draw ``(B,)`` bool: whether each image is mirrored."""
        ...

    def attacked(self, share: float) -> tuple[Rows, Rows]:
        """Choose the images to attack; return them and the others."""
        ...

    def noise(self, rows: Rows) -> Noise:
        """Return the noise for crafting these images of the batch."""
        ...

    def classes(self, n_classes: int) -> Tensor:
        """Draw uniform numbers ``(B, n_classes)``, for the groups of classes of distillation."""
        ...


@dataclass(frozen=True, eq=False)
class CounterDraws:
    """The random numbers of a batch, drawn on the device of its images' numbers, without a word from the host.

    Attributes:
        seed: Seed of the training.
        shown: Number ``(B,)`` int64 of each image's showing: epoch times images, plus the image.
    """

    seed: int
    shown: Tensor

    def offsets(self, choices: int) -> Tensor:
        return (uniform(self.seed, "crop", self.shown, (2,)).T * choices).long().clamp(max=choices - 1)

    def mirrored(self) -> Tensor:
        return uniform(self.seed, "mirror", self.shown, ()) < 0.5

    def attacked(self, share: float) -> tuple[Rows, Rows]:
        """Choose the first ``round(share * B)`` of the batch, which is in random order: the same number in every batch."""
        n = round(share * len(self.shown))
        return slice(n), slice(n, None)

    def noise(self, rows: Rows) -> Noise:
        return Noise(self.seed, self.shown[rows])

    def classes(self, n_classes: int) -> Tensor:
        return uniform(self.seed, "classes", self.shown, (n_classes,))

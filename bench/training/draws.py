"""Random numbers of training: functions of the seed, the image and how often it was shown, with the same bits on every device.

They come from a counter-based generator, Philox-4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2,
3", SC 2011), so that a batch draws them on its own device, in an order that does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from exitbench.attacks.noise import Noise

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

_CROP, _MIRROR, _CLASSES = range(3)
_CRAFTING = 16
"""The first stream of crafting; each restart takes three."""


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
        seed: Seed of the training, at least 0.
        shown: Number ``(B,)`` int64 of each image's showing: epoch times images, plus the image.
    """

    seed: int
    shown: Tensor

    def offsets(self, choices: int) -> Tensor:
        return (self._uniform(_CROP, (2,)).T * choices).long().clamp(max=choices - 1)

    def mirrored(self) -> Tensor:
        return self._uniform(_MIRROR, ()) < 0.5

    def attacked(self, share: float) -> tuple[Rows, Rows]:
        """Choose the first ``round(share * B)`` of the batch, which is in random order: the same number in every batch."""
        n = round(share * len(self.shown))
        return slice(n), slice(n, None)

    def noise(self, rows: Rows) -> Noise:
        return ShownNoise(self.seed, (), shown=self.shown[rows])

    def classes(self, n_classes: int) -> Tensor:
        return self._uniform(_CLASSES, (n_classes,))

    def _uniform(self, stream: int, shape: tuple[int, ...]) -> Tensor:
        return uniform(self.seed, stream, self.shown, shape)


@dataclass(frozen=True, eq=False)
class ShownNoise(Noise):
    """The noise of images shown in training: that of ``CounterDraws``.

    Attributes:
        shown: Number ``(B,)`` int64 of each image's showing.
    """

    shown: Tensor = field(kw_only=True)

    def uniform(self, like: Tensor, restart: int = 0) -> Tensor:
        return self._drawn(0, like, restart)

    def normal(self, like: Tensor, restart: int = 0) -> Tensor:
        """Draw standard normal numbers of the shape ``(B, ...)`` of ``like``, by Box and Muller's transformation."""
        radius = (-2 * torch.log1p(-self._drawn(1, like, restart))).sqrt()
        return radius * torch.cos(2 * math.pi * self._drawn(2, like, restart))

    def of(self, rows: Tensor) -> Noise:
        return ShownNoise(self.seed, (), shown=self.shown[rows])

    def _drawn(self, kind: int, like: Tensor, restart: int) -> Tensor:
        drawn = uniform(self.seed, _CRAFTING + 3 * restart + kind, self.shown, tuple(like.shape[1:]))
        return drawn.to(like.dtype)


def uniform(seed: int, stream: int, shown: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw multiples of 2^-24 in [0, 1), float32 of shape ``(B, *shape)``, for each of the numbers ``(B,)`` int64 shown."""
    size = math.prod(shape)
    blocks = torch.arange(-(-size // 4), device=shown.device)
    sample = shown[:, None]
    parts = (blocks[None, :], torch.full_like(blocks, stream)[None, :], sample & _LOW, (sample >> 32) & _LOW)
    counter = [part.expand(len(shown), len(blocks)) for part in parts]
    words = torch.stack(philox(counter, (seed & _LOW, (seed >> 32) & _LOW)), dim=-1)
    fractions = (words >> 8).to(torch.float32) * 2.0**-24
    return fractions.flatten(1)[:, :size].reshape(len(shown), *shape)


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four 32-bit words for a counter of four words of one shape and a key of two, all held in int64."""
    a, b, c, d = counter
    first, second = key
    for _ in range(_ROUNDS):
        # The product of two 32-bit words wraps around in int64 with the right bits.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = ((right >> 32) & _LOW) ^ b ^ first, right & _LOW
        c, d = ((left >> 32) & _LOW) ^ d ^ second, left & _LOW
        first, second = (first + _WEYL[0]) & _LOW, (second + _WEYL[1]) & _LOW
    return a, b, c, d

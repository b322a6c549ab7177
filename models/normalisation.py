"""Normalises images in front of a network that expects it of whoever calls it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from exitbench.models.errors import InvalidValue


class Normalise(nn.Module):
    """A module that subtracts a mean and divides by a standard deviation, ``(1, C, 1, 1)`` each."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)) / self.std.to(x)


@dataclass(frozen=True)
class Normalisation:
    """The mean and standard deviation of each channel, for pixels in [0, 1].

    Raises:
        InvalidValue: If the two differ in length, a mean is outside [0, 1], or a standard deviation outside (0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise InvalidValue(f"{len(self.mean)} means and {len(self.std)} standard deviations; one of each is for a channel")
        for what, value, fits in (
            *(("a mean", each, 0 <= each <= 1) for each in self.mean),
            *(("a standard deviation", each, 0 < each <= 1) for each in self.std),
        ):
            if not fits:
                hint = f"; was {value / 255:.4g} meant?" if 1 < value <= 255 else ""
                raise InvalidValue(f"{what} is {value:g}: pixels are in [0, 1], means in [0, 1], deviations in (0, 1]{hint}")

    @classmethod
    def given(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Self | None:
        """Return the normalisation with this mean and standard deviation per channel; None without both.

        Raises:
            InvalidValue: If one of them is missing, or see the class.
        """
        if mean is None and std is None:
            return None
        if mean is None or std is None:
            raise InvalidValue("--mean and --std are given together: one number per channel each, as --mean 0.5,0.5,0.5")
        if not all(math.isfinite(each) for each in (*mean, *std)):
            raise InvalidValue("a mean or standard deviation is not a finite number")
        return cls(tuple(map(float, mean)), tuple(map(float, std)))

    def layer(self, channels: int) -> Normalise:
        """Return the module for images of so many channels.

        Raises:
            InvalidValue: If it is for another number of channels.
        """
        if len(self.mean) != channels:
            raise InvalidValue(f"--mean and --std have {len(self.mean)} numbers, the images have {channels} channels")
        return Normalise(*(torch.tensor(each).view(1, -1, 1, 1) for each in (self.mean, self.std)))

    def over(self, channels: int) -> Self:
        """Return the normalisation for images of so many channels: itself, or its averages for each."""
        if len(self.mean) == channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return type(self)((mean,) * channels, (std,) * channels)

    def __str__(self) -> str:
        mean, std = (", ".join(f"{each:g}" for each in values) for values in (self.mean, self.std))
        return f"mean {mean}, standard deviation {std}"

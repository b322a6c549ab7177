"""Random numbers tied to the sample, so that results do not depend on the batch size or on how work is split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from exitbench.attacks.draws import hashed, normal, uniform


class Noise:
    """The random numbers of a batch: a separate stream for each (seed, sample, restart), the same bits on every device.

    Drawing, and taking the noise of some rows, never waits for a device; ``samples``, ``batches`` and ``integer`` do where the
    samples are there.

    Args:
        seed: Seed of the evaluation.
        samples: Index of each sample in its dataset, in batch order: integers, or an int64 tensor ``(B,)`` on any device.
        parts: The batch that each sample belongs to, if several batches are run as one; empty for one batch.
    """

    def __init__(self, seed: int, samples: Sequence[int] | Tensor, parts: Sequence[int] | Tensor = ()) -> None:
        self.seed = seed
        self._ids, self._parts = _numbers(samples), _numbers(parts)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def samples(self) -> tuple[int, ...]:
        """Index of each sample in its dataset, in [0, 2^64)."""
        return tuple(sample % 2**64 for sample in self._ids.tolist())

    def uniform(self, like: Tensor, restart: int = 0) -> Tensor:
        """Draw uniform numbers in [0, 1), multiples of 2^-24, of the shape ``(B, ...)``, type and device of ``like``."""
        return uniform(self.seed, "uniform", self._for(like), like.shape[1:], restart=restart).to(like)

    def normal(self, like: Tensor, restart: int = 0) -> Tensor:
        """Draw standard normal numbers of the shape ``(B, ...)``, type and device of ``like``."""
        return normal(self.seed, "normal", self._for(like), like.shape[1:], restart=restart).to(like)

    def of(self, rows: Tensor) -> Self:
        """Return the noise of the given rows ``(M,)`` of the batch."""
        self._move(rows.device)
        return type(self)(self.seed, self._ids[rows], self._parts[rows] if len(self._parts) else ())

    def batches(self) -> list[Tensor]:
        """Return the rows of each batch that is part of this one, for packages that draw random numbers per batch."""
        if not len(self._parts):
            return [torch.arange(len(self))]
        parts = self._parts.cpu()
        return [(parts == part).nonzero().flatten() for part in dict.fromkeys(parts.tolist())]

    def integer(self, purpose: str) -> int:
        """Return a seed in [0, 2^31) for a library that takes one for the whole batch."""
        return hashed(self.seed, purpose, *self.samples) % 2**31

    def _for(self, like: Tensor) -> Tensor:
        if len(like) != len(self):
            raise ValueError(f"noise for {len(self)} samples, asked for {len(like)}")
        self._move(like.device)
        return self._ids

    def _move(self, device: torch.device) -> None:
        """Keep the samples on ``device``, so that they are copied to it once."""
        if self._ids.device != device:
            waits = device.type == "cpu"  # a copy from the host does not, if it is left to itself
            self._ids, self._parts = (kept.to(device, non_blocking=not waits) for kept in (self._ids, self._parts))


def _numbers(values: Sequence[int] | Tensor) -> Tensor:
    """Return integers as int64, modulo 2^64."""
    if isinstance(values, Tensor):
        return values
    return torch.tensor([(value + 2**63) % 2**64 - 2**63 for value in values], dtype=torch.int64)

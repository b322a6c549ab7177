"""Random numbers tied to the sample, so that results do not depend on the batch size or on how work is split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """The random numbers of a batch: a separate stream for each (seed, sample, restart).

    Attributes:
        seed: Seed of the evaluation.
        samples: Index of each sample in its dataset, in batch order.
        parts: The batch that each sample belongs to, if several batches are run as one; empty for one batch.
    """

    seed: int
    samples: tuple[int, ...]
    parts: tuple[int, ...] = ()

    def uniform(self, like: Tensor, restart: int = 0) -> Tensor:
        """Draw uniform numbers in [0, 1) of the shape ``(B, ...)`` of ``like``."""
        return self._draw(torch.rand, "uniform", like, restart)

    def normal(self, like: Tensor, restart: int = 0) -> Tensor:
        """Draw standard normal numbers of the shape ``(B, ...)`` of ``like``."""
        return self._draw(torch.randn, "normal", like, restart)

    def of(self, rows: Tensor) -> Noise:
        """Return the noise of the given rows ``(M,)`` of the batch."""
        kept: list[int] = rows.tolist()
        parts = tuple(self.parts[row] for row in kept) if self.parts else ()
        return Noise(self.seed, tuple(self.samples[row] for row in kept), parts)

    def batches(self) -> list[Tensor]:
        """Return the rows of each batch that is part of this one, for packages that draw random numbers per batch."""
        if not self.parts:
            return [torch.arange(len(self.samples))]
        parts = torch.tensor(self.parts)
        return [(parts == part).nonzero().flatten() for part in dict.fromkeys(self.parts)]

    def integer(self, purpose: str) -> int:
        """Return a seed in [0, 2^31) for a library that takes one for the whole batch."""
        return _hash(self.seed, purpose, *self.samples) % 2**31

    def _draw(self, draw: Callable[..., Tensor], kind: str, like: Tensor, restart: int) -> Tensor:
        if len(like) != len(self.samples):
            raise ValueError(f"noise for {len(self.samples)} samples, asked for {len(like)}")
        rows = []
        for sample in self.samples:
            generator = torch.Generator().manual_seed(_hash(self.seed, kind, sample, restart) % 2**63)
            rows.append(draw(like.shape[1:], generator=generator))
        return torch.stack(rows).to(like) if rows else torch.empty_like(like)


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")

"""The random numbers of the trust checks before their version 4, so that results of then are measured again as they were."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from exitbench.attacks.draws import hashed
from exitbench.attacks.noise import Noise
from exitbench.runner.probe_key import SAME_NOISE


class EarlierNoise(Noise):
    """Noise from torch's generator of the host, seeded for each sample by (seed, kind, sample, restart)."""

    def uniform(self, like: Tensor, restart: int = 0) -> Tensor:
        """Draw uniform numbers in [0, 1) of the shape ``(B, ...)`` of ``like``."""
        return self._seeded(torch.rand, "uniform", like, restart)

    def normal(self, like: Tensor, restart: int = 0) -> Tensor:
        """Draw standard normal numbers of the shape ``(B, ...)`` of ``like``."""
        return self._seeded(torch.randn, "normal", like, restart)

    def _seeded(self, draw: Callable[..., Tensor], kind: str, like: Tensor, restart: int) -> Tensor:
        seeds = [hashed(self.seed, kind, sample, restart) % 2**63 for sample in self.samples]
        rows = [draw(like.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(like) if rows else torch.empty_like(like)


def noise_of(version: int) -> type[Noise]:
    """Return the kind of random numbers of a version of the trust checks."""
    return Noise if version >= SAME_NOISE else EarlierNoise

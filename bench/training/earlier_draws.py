"""The random numbers of trainings that were begun before numbers were counted: a resumed one goes on with its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.noise import Noise
from exitbench.checks.earlier_noise import EarlierNoise
from exitbench.training.draws import Rows


@dataclass(frozen=True, eq=False)
class EarlierDraws:
    """The random numbers of a batch, drawn on the CPU one after the other.

    Attributes:
        generator: The generator of the epoch.
        seed: Seed of the epoch's noise.
        rows: The images ``(B,)`` of the batch.
    """

    generator: torch.Generator
    seed: int
    rows: Tensor

    def offsets(self, choices: int) -> Tensor:
        drawn = torch.randint(0, choices, (2, len(self.rows), 1), generator=self.generator)
        return drawn[..., 0].to(self.rows.device)

    def mirrored(self) -> Tensor:
        return (torch.rand(len(self.rows), generator=self.generator) < 0.5).to(self.rows.device)

    def attacked(self, share: float) -> tuple[Rows, Rows]:
        """Choose each image with probability ``share``."""
        attacked = torch.rand(len(self.rows), generator=self.generator) < share
        chosen, others = (mask.nonzero()[:, 0].to(self.rows.device) for mask in (attacked, ~attacked))
        return chosen, others

    def noise(self, rows: Rows) -> Noise:
        return EarlierNoise(self.seed, tuple(self.rows[rows].tolist()))

    def classes(self, n_classes: int) -> Tensor:
        return torch.rand(len(self.rows), n_classes, generator=self.generator).to(self.rows.device)

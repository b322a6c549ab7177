"""What is probed: a target and the samples, with what the evaluation attacks them with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Mean, Objective
from exitbench.attacks.settings import Settings
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, deployed_logits


@dataclass(frozen=True, eq=False)
class Subject:
    """Samples of a probe and the model they are put to.

    Attributes:
        model: the plain fp32 network, which decides.
        policy: the deployed exit rule.
        x: clean images ``(B, C, H, W)`` in [0, 1], on the model's device.
        y: labels ``(B,)``.
        noise: the randomness of these samples.
        settings: of the evaluation's gradient attacks, threat model included.
    """

    model: EarlyExitNet
    policy: Policy
    x: Tensor
    y: Tensor
    noise: Noise
    settings: Settings

    @property
    def objective(self) -> Objective:
        """What the white-box probes ascend: the evaluation's loss, averaged over the exits, as ``average`` does."""
        return Objective(self.settings.untargeted_loss, Mean())

    def judge(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the deployed prediction is wrong, and the 0-based exit taken, ``(B,)`` each."""
        predicted, exits = deployed_logits(logits, self.policy)
        return predicted.argmax(-1) != self.y, exits

    @torch.no_grad()
    def fails(self, x_adv: Tensor) -> Tensor:
        """Whether the deployed prediction on each image of ``x_adv`` is wrong: ``(B,)``."""
        return self.judge(self.model(x_adv))[0]

    def rows(self, mask: Tensor) -> Subject:
        """The samples where ``mask`` ``(B,)`` is true."""
        samples = tuple(sample for sample, kept in zip(self.noise.samples, mask.tolist(), strict=True) if kept)
        return Subject(self.model, self.policy, self.x[mask], self.y[mask], Noise(self.noise.seed, samples), self.settings)

    def names(self, mask: Tensor) -> list[int]:
        """Indices, in the dataset, of the samples where ``mask`` is true."""
        return list(self.rows(mask).noise.samples)

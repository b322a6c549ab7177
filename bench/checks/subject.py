"""The subject of the trust checks: a target, samples, and the settings of the evaluation's attacks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Mean, Objective
from exitbench.attacks.settings import AttackSettings
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, deployed_logits


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the samples that it is probed on.

    Attributes:
        model: The plain fp32 network, which decides.
        policy: The deployed exit rule.
        x: Clean images ``(B, C, H, W)`` in [0, 1], on the model's device.
        y: Labels ``(B,)``.
        noise: The random numbers of these samples.
        settings: Settings of the evaluation's gradient attacks, threat model included.
    """

    model: EarlyExitNet
    policy: Policy
    x: Tensor
    y: Tensor
    noise: Noise
    settings: AttackSettings

    @property
    def objective(self) -> Objective:
        """The objective of the white-box probes: the evaluation's loss averaged over the exits, as in ``average``."""
        return Objective(self.settings.untargeted_loss, Mean())

    def outcome(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether the deployed prediction is wrong, and the exit taken (0-based), ``(B,)`` each."""
        predicted, exits = deployed_logits(logits, self.policy)
        return predicted.argmax(-1) != self.y, exits

    @torch.no_grad()
    def fails(self, x_adv: Tensor) -> Tensor:
        """Return whether the deployed prediction on each image of ``x_adv`` is wrong, ``(B,)``."""
        return self.outcome(self.model(x_adv))[0]

    def rows(self, mask: Tensor) -> Subject:
        """Return the subject with the samples where ``mask`` ``(B,)`` is true."""
        rows = mask.nonzero().flatten()
        return Subject(self.model, self.policy, self.x[rows], self.y[rows], self.noise.of(rows), self.settings)

    def names(self, mask: Tensor) -> tuple[int, ...]:
        """Return the dataset indices of the samples where ``mask`` ``(B,)`` is true."""
        return self.rows(mask).noise.samples

"""The rule of networks that learn when to leave."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.models.gate_scores import score_of
from exitbench.models.policies import SureAbove
from exitbench.models.rules.registry import register_policy
from exitbench.models.uncertainty import FAR


@register_policy("gate", values="T1,T2,...", summary="the score of the network's own gate head, above the threshold")
@dataclass(frozen=True)
class GatePolicy(SureAbove):
    """A policy that leaves where the score of the network's own gate head is above the threshold.

    A score is a number of any size, such as the logit of the probability that the exit is right; thresholds have its unit.
    """

    saturates = False

    @property
    def needs_scores(self) -> bool:
        return True

    @classmethod
    def sureness(cls, seen: Tensor) -> Tensor:
        return score_of(seen[-1])

    def condition(self, k: int) -> str:
        return f"gate score > {self.thresholds[k]:.4g}"

    def unit(self, threshold: float) -> float:
        return max(abs(threshold), 1.0)

    def log_slack(self, seen: Tensor) -> Tensor:
        threshold = self.thresholds[len(seen) - 1]
        if math.isinf(threshold):
            return torch.full_like(seen[-1, :, 0], math.copysign(FAR, -threshold))
        return score_of(seen[-1]) - threshold

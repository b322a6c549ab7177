"""The rule of networks that learn when to leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.models.at_once import SureAtOnce, constants
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

    def at_once(self) -> SureAtOnce:
        return SureAtOnce(self, self.thresholds, self.unit, sureness=score_of, log_slack=_above, fixed=_fixed)

    def condition(self, k: int) -> str:
        return f"gate score > {self.thresholds[k]:.4g}"

    def log_slack(self, seen: Tensor) -> Tensor:
        threshold = self.thresholds[len(seen) - 1]
        if math.isinf(threshold):
            return torch.full_like(seen[-1, :, 0], math.copysign(FAR, -threshold))
        return score_of(seen[-1]) - threshold


def _above(logits: Tensor, thresholds: Sequence[float]) -> Tensor:
    return score_of(logits) - constants(thresholds, logits)


def _fixed(threshold: float) -> float | None:
    return math.copysign(FAR, -threshold) if math.isinf(threshold) else None

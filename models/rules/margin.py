"""The rule that compares the two most probable classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.models.at_once import SureAtOnce, constants
from exitbench.models.policies import SureAbove
from exitbench.models.rules.registry import register_policy
from exitbench.models.uncertainty import FAR


@register_policy("margin", values="T1,T2,...", summary="largest probability minus the second, above the threshold")
@dataclass(frozen=True)
class MarginPolicy(SureAbove):
    """A policy that leaves where the largest softmax probability exceeds the second by more than the threshold."""

    is_share = True

    @classmethod
    def sureness(cls, seen: Tensor) -> Tensor:
        return _margin(seen[-1])

    def at_once(self) -> SureAtOnce:
        return SureAtOnce(self, self.thresholds, self.unit, sureness=_margin, log_slack=_log_slacks, fixed=_fixed)

    def condition(self, k: int) -> str:
        return f"margin > {self.thresholds[k]:.4g}"

    def log_slack(self, seen: Tensor) -> Tensor:
        """Return ``log(1 - threshold) - log(1 - margin)``, ``(B,)``.

        One minus the margin is the probability of all classes but the first, plus that of the second once more: a sum of positive
        terms, whose logarithm keeps its gradient where the softmax is saturated.
        """
        logits, threshold = seen[-1], self.thresholds[len(seen) - 1]
        if not 0 < threshold < 1:
            always = threshold < 0 or logits.shape[-1] == 1
            if threshold == 0:  # open unless two classes are exactly equal
                first, second = logits.topk(2, dim=-1).values.unbind(-1)
                return first - second
            return torch.full_like(logits[:, 0], FAR if always else -FAR)
        return math.log(1 - threshold) - _log_rest(logits)


def _margin(logits: Tensor) -> Tensor:
    first, second = torch.softmax(logits, dim=-1).topk(2, dim=-1).values.unbind(-1)
    return first - second


def _log_rest(logits: Tensor) -> Tensor:
    """Return the logarithm of one minus the margin, ``(...)``, from logits ``(..., classes)``."""
    values, order = logits.topk(2, dim=-1)
    top = torch.arange(logits.shape[-1], device=logits.device) == order[..., :1]
    others = torch.cat([logits.masked_fill(top, -torch.inf), values[..., 1:]], dim=-1)
    return torch.logsumexp(others, -1) - torch.logsumexp(logits, -1)


def _log_slacks(logits: Tensor, thresholds: Sequence[float]) -> Tensor:
    free = [threshold or 0.5 for threshold in thresholds]
    found = constants([math.log(1 - threshold) for threshold in free], logits) - _log_rest(logits)
    if all(thresholds):
        return found
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return torch.where(constants(thresholds, logits) == 0, first - second, found)


def _fixed(threshold: float) -> float | None:
    """Return the log slack of a gate that no margin opens or shuts; at 0 it is open unless two classes are exactly equal."""
    return None if 0 <= threshold < 1 else FAR if threshold < 0 else -FAR

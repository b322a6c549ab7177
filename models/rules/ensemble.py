"""Rules in which the mean of the heads' predictions so far decides and predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.models.at_once import AtOnce, confidence_at_once, constants
from exitbench.models.policies import SureAbove
from exitbench.models.rules.registry import register_policy
from exitbench.models.uncertainty import confidence, log_confidence_slack


class _OfMean(SureAbove):
    """A policy that leaves where the largest probability of the mean prediction so far is above its threshold."""

    is_share = True

    @classmethod
    def mean(cls, seen: Tensor) -> Tensor:
        """Return the mean prediction ``(B, classes)`` of the exits seen, as logits."""
        raise NotImplementedError

    @classmethod
    def means(cls, logits: Tensor) -> Tensor:
        """Return the mean prediction of the exits so far at every exit, ``(K, B, classes)``, as logits."""
        raise NotImplementedError

    @classmethod
    def sureness(cls, seen: Tensor) -> Tensor:
        return confidence(cls.mean(seen))

    def at_once(self) -> AtOnce:
        return _MeanAtOnce(self)

    def predicted(self, seen: Tensor) -> Tensor:
        return self.mean(seen)

    def condition(self, k: int) -> str:
        return f"mean confidence > {self.thresholds[k]:.4g}"

    def log_slack(self, seen: Tensor) -> Tensor:
        return log_confidence_slack(self.mean(seen), self.thresholds[len(seen) - 1])


class _MeanAtOnce(AtOnce):
    """The rule on the mean predictions of all exits."""

    def __init__(self, policy: _OfMean) -> None:
        super().__init__(policy)
        self.means, self.rule = policy.means, confidence_at_once(policy, policy.thresholds, policy.unit)

    def leave(self, logits: Tensor) -> Tensor:
        return self.rule.leave(self.means(logits))

    def slack(self, logits: Tensor) -> Tensor:
        return self.rule.slack(self.means(logits))

    def log_slack(self, logits: Tensor) -> Tensor:
        return self.rule.log_slack(self.means(logits))

    def opening(self, logits: Tensor, label: Tensor) -> Tensor:
        return self.log_slack(logits)

    def predicted(self, logits: Tensor) -> Tensor:
        return self.means(logits)


@register_policy("vote", values="T1,T2,...", summary="the arithmetic mean of the heads so far decides and predicts")
@dataclass(frozen=True)
class VotePolicy(_OfMean):
    """A policy in which the arithmetic mean of all heads' probabilities so far decides and predicts (soft voting)."""

    @classmethod
    def mean(cls, seen: Tensor) -> Tensor:
        return torch.logsumexp(torch.log_softmax(seen, dim=-1), dim=0) - math.log(len(seen))

    @classmethod
    def means(cls, logits: Tensor) -> Tensor:
        counts = constants([math.log(k + 1) for k in range(len(logits))], logits)
        return torch.logcumsumexp(torch.log_softmax(logits, dim=-1), dim=0) - counts[:, None]


@register_policy("ensemble", values="T1,T2,...", summary="the same with the geometric mean (as in Zero Time Waste)")
@dataclass(frozen=True)
class EnsemblePolicy(_OfMean):
    """A policy in which the geometric mean of all heads' probabilities so far decides and predicts.

    It is the ensemble of "Zero Time Waste" (Wolczyk et al., NeurIPS 2021, section 3.2) with equal weights and without a bias.
    """

    @classmethod
    def mean(cls, seen: Tensor) -> Tensor:
        return torch.log_softmax(torch.log_softmax(seen, dim=-1).mean(0), dim=-1)

    @classmethod
    def means(cls, logits: Tensor) -> Tensor:
        counts = constants([float(k + 1) for k in range(len(logits))], logits)
        return torch.log_softmax(torch.log_softmax(logits, dim=-1).cumsum(0) / counts[:, None], dim=-1)

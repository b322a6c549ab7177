"""Exit policies: they decide from the logits so far which exit each input takes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.models.errors import InvalidValue

FAR = 50.0
"""Log slack (absolute value) of a gate that is open, or shut, whatever the logits."""


class Policy(ABC):
    """A rule that maps the logits of all exits to the exit taken: the first whose gate opens, else the last."""

    @abstractmethod
    def leaves(self, logits_k: Tensor, k: int) -> Tensor:
        """Return whether each input leaves at exit ``k`` (0-based), ``(B,)`` bool, given its logits ``(B, classes)`` there."""

    @abstractmethod
    def slack(self, logits_k: Tensor, k: int) -> Tensor:
        """Return how far gate ``k`` is open, ``(B,)``: positive where inputs leave, relative to the threshold, differentiable."""

    def log_slack(self, logits_k: Tensor, k: int) -> Tensor:
        """Return how far gate ``k`` is open, ``(B,)``, in the unit of logits, for search; the sign is that of ``slack``.

        Policies on softmax outputs return a logarithm, whose gradient does not vanish where the softmax is saturated.
        """
        return self.slack(logits_k, k)

    @abstractmethod
    def check(self, n_exits: int) -> None:
        """Raise ``ValueError`` if this policy cannot run on a network of ``n_exits`` exits."""

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the index ``(B,)`` (0-based, int64) of the exit taken, from the logits ``(K, B, classes)`` of all exits."""
        n_exits = len(logits)
        self.check(n_exits)
        taken = torch.full((logits.shape[1],), n_exits - 1, dtype=torch.int64, device=logits.device)
        for k in reversed(range(n_exits - 1)):
            taken = torch.where(self.leaves(logits[k], k), k, taken)
        return taken


def deployed_logits(logits: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Return the logits ``(B, classes)`` of the exit taken and its index ``(B,)``, from all logits ``(K, B, classes)``."""
    taken = policy(logits)
    return logits[taken, torch.arange(logits.shape[1], device=logits.device)], taken


def exits_within_reach(policy: Policy, n_exits: int) -> list[int]:
    """Return the exits (0-based) that some input may take: none behind a gate that never shuts, none whose gate never opens.

    Only infinite thresholds are recognised, not finite ones that no logits can reach.
    """
    logits = torch.zeros(1, 2, requires_grad=True)
    found = []
    for k in range(n_exits - 1):
        with torch.enable_grad():
            slack = policy.slack(logits, k)
        if slack.requires_grad or slack > 0:
            found.append(k)
        if not slack.requires_grad and slack > 0:
            return found
    return [*found, n_exits - 1]


def entropy(logits: Tensor) -> Tensor:
    """Return the softmax entropy (nats) over the last dimension: ``-sum p log(p + 1e-5)``, as in the code of "Triple Wins"."""
    p = torch.softmax(logits, dim=-1)
    return -(p * torch.log(p + 1e-5)).sum(-1)


def log_entropy(logits: Tensor) -> Tensor:
    """Return the logarithm of the softmax entropy (nats) over the last dimension, at any confidence; it is differentiable once.

    Once one class has all the probability, the entropy and its gradient round to zero; the logarithm then falls by about 1 per
    unit of logit (error up to 0.1 in fp32). The gradient has the closed form ``share - p``, where ``share`` is each class's part
    of the entropy: the gradient of the cross-entropy to the uniform distribution, with ``share`` in place of ``1 / classes``.
    """
    with torch.no_grad():
        log_p = torch.log_softmax(logits, dim=-1)
        log_parts = log_p + torch.log(-log_p)  # -infinity, no part, where a probability rounds to 1
        value = torch.logsumexp(log_parts, dim=-1)
        gradient = torch.exp(log_parts - value[..., None]) - log_p.exp()
    return value + (gradient * (logits - logits.detach())).sum(-1)


def confidence(logits: Tensor) -> Tensor:
    """Return the largest softmax probability over the last dimension."""
    return torch.softmax(logits, dim=-1).amax(-1)


@dataclass(frozen=True)
class _Thresholds(Policy):
    """A policy with one threshold per exit but the last.

    Attributes:
        thresholds: K - 1 numbers; infinities are allowed.
        calibration: Digest of the data and procedure that set the thresholds; None if they were given by hand.

    Raises:
        InvalidValue: If a threshold is NaN.
    """

    thresholds: tuple[float, ...]
    calibration: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
        if any(math.isnan(t) for t in self.thresholds):
            raise InvalidValue("a threshold is NaN")

    def check(self, n_exits: int) -> None:
        if len(self.thresholds) != n_exits - 1:
            raise InvalidValue(f"a network of {n_exits} exits needs {n_exits - 1} thresholds, got {len(self.thresholds)}")


@dataclass(frozen=True)
class EntropyPolicy(_Thresholds):
    """A policy that leaves at the first exit whose softmax entropy (nats) is below its threshold ("Triple Wins", section 3.1)."""

    def leaves(self, logits_k: Tensor, k: int) -> Tensor:
        return entropy(logits_k) < self.thresholds[k]

    def slack(self, logits_k: Tensor, k: int) -> Tensor:
        threshold = self.thresholds[k]
        if math.isinf(threshold):
            return torch.full_like(logits_k[:, 0], math.copysign(1, threshold))
        return (threshold - entropy(logits_k)) / max(abs(threshold), 1e-6)

    def log_slack(self, logits_k: Tensor, k: int) -> Tensor:
        threshold = self.thresholds[k]
        if math.isinf(threshold):
            return torch.full_like(logits_k[:, 0], math.copysign(FAR, threshold))
        # The 1e-5 in the deployed entropy is accounted for in the threshold; it matters for gates with very low ones.
        with torch.no_grad():
            p = torch.softmax(logits_k, dim=-1).clamp_min(1e-30)
            reduced = threshold + (p * torch.log1p(1e-5 / p)).sum(-1)
        return torch.where(reduced > 0, torch.log(reduced.clamp_min(1e-30)) - log_entropy(logits_k), -FAR)


@dataclass(frozen=True)
class ConfidencePolicy(_Thresholds):
    """A policy that leaves at the first exit whose largest softmax probability is above its threshold (MSDNet, ICLR 2018)."""

    def leaves(self, logits_k: Tensor, k: int) -> Tensor:
        return confidence(logits_k) > self.thresholds[k]

    def slack(self, logits_k: Tensor, k: int) -> Tensor:
        threshold = self.thresholds[k]
        if math.isinf(threshold):
            return torch.full_like(logits_k[:, 0], math.copysign(1, -threshold))
        return (confidence(logits_k) - threshold) / max(abs(1 - threshold), 1e-6)

    def log_slack(self, logits_k: Tensor, k: int) -> Tensor:
        threshold = self.thresholds[k]
        if not 0 < threshold < 1:
            return torch.full_like(logits_k[:, 0], FAR if threshold <= 0 else -FAR)
        top = torch.arange(logits_k.shape[-1], device=logits_k.device) == logits_k.argmax(-1)[..., None]
        rest = torch.logsumexp(logits_k.masked_fill(top, -torch.inf), -1) - torch.logsumexp(logits_k, -1)
        return math.log(1 - threshold) - rest


@dataclass(frozen=True)
class FixedExit(Policy):
    """A policy that always leaves at one exit; ``exit`` is 1-based, as users count."""

    exit: int

    def leaves(self, logits_k: Tensor, k: int) -> Tensor:
        return torch.full((len(logits_k),), k == self.exit - 1, device=logits_k.device)

    def slack(self, logits_k: Tensor, k: int) -> Tensor:
        return torch.full_like(logits_k[:, 0], 1.0 if k == self.exit - 1 else -1.0)

    def log_slack(self, logits_k: Tensor, k: int) -> Tensor:
        return FAR * self.slack(logits_k, k)

    def check(self, n_exits: int) -> None:
        if not 1 <= self.exit <= n_exits:
            raise InvalidValue(f"exit {self.exit} is outside 1..{n_exits}")

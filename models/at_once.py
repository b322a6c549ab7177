"""Exit rules for all exits at once, so that a step of a search costs as many operations however many exits there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from exitbench.models.own_code import is_own
from exitbench.models.uncertainty import FAR, confidence, entropy, log_entropy

if TYPE_CHECKING:
    from exitbench.models.policies import Policy


class AtOnce:
    """A rule on all exits at once, asked exit by exit; rules of exitbench have forms of their own without that loop.

    In all methods ``logits`` are those of K exits, ``(K, B, classes)``. The last of these has no gate, so that there are K - 1.

    Args:
        policy: The rule.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def leave(self, logits: Tensor) -> Tensor:
        """Return whether each gate is open, ``(K - 1, B)`` bool."""
        return self._of_gates(self.policy.leaves, logits, torch.bool)

    def slack(self, logits: Tensor) -> Tensor:
        """Return ``Policy.slack`` of every gate, ``(K - 1, B)``."""
        return self._of_gates(self.policy.slack, logits)

    def log_slack(self, logits: Tensor) -> Tensor:
        """Return ``Policy.log_slack`` of every gate, ``(K - 1, B)``."""
        return self._of_gates(self.policy.log_slack, logits)

    def opening(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return ``Policy.opening`` of every gate, ``(K - 1, B)``, for predictions other than ``label`` ``(B,)``."""
        return self._of_gates(lambda seen: self.policy.opening(seen, label), logits)

    def predicted(self, logits: Tensor) -> Tensor:
        """Return what is predicted at each exit, ``(K, B, classes)``, as logits."""
        return torch.stack([self.policy.predicted(logits[: k + 1]) for k in range(len(logits))])

    @staticmethod
    def _of_gates(ask: Callable[[Tensor], Tensor], logits: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        found = [ask(logits[: k + 1]) for k in range(len(logits) - 1)]
        return torch.stack(found) if found else logits.new_empty((0, logits.shape[1]), dtype=dtype)


def at_once(policy: Policy) -> AtOnce:
    """Return a rule on all exits at once.

    A class from outside exitbench may change any part of the rule that it is derived from, and is then asked exit by exit, unless
    it brings a form of its own (``Policy.at_once``).
    """
    kind = type(policy)
    return policy.at_once() if is_own(kind.__module__) or "at_once" in vars(kind) else AtOnce(policy)


def is_without_loop(policy: Policy) -> bool:
    """Return whether a rule has a form for all exits at once, so that nothing of it is code from outside exitbench."""
    inner = getattr(policy, "rule", policy)  # behind temperatures, or of the user's own
    return is_own(type(inner).__module__) and type(at_once(inner)) is not AtOnce


class OfLastExit(AtOnce):
    """A rule whose gates and predictions are those of single exits, so that logits are seen whole.

    Subclasses implement ``leave``, ``slack`` and ``log_slack``.
    """

    def opening(self, logits: Tensor, label: Tensor) -> Tensor:
        return self.log_slack(logits)

    def predicted(self, logits: Tensor) -> Tensor:
        return logits


class SureAtOnce(OfLastExit):
    """A rule that leaves where a measure of each exit's sureness is above its threshold.

    Args:
        policy: The rule.
        thresholds: Its K - 1 thresholds.
        unit: Maps a threshold to the unit of ``slack`` there.
        sureness: Maps logits ``(..., classes)`` to sureness ``(...)``.
        log_slack: Maps logits ``(K - 1, B, classes)`` and K - 1 thresholds to slacks in log units, ``(K - 1, B)``.
        fixed: Maps a threshold to the log slack of a gate that is fixed by it; None where it is not.
    """

    def __init__(
        self,
        policy: Policy,
        thresholds: tuple[float, ...],
        unit: Callable[[float], float],
        *,
        sureness: Callable[[Tensor], Tensor],
        log_slack: Callable[[Tensor, Sequence[float]], Tensor],
        fixed: Callable[[float], float | None],
    ) -> None:
        super().__init__(policy)
        self.thresholds, self.unit, self.sureness, self._log_slack, self.fixed = thresholds, unit, sureness, log_slack, fixed

    def leave(self, logits: Tensor) -> Tensor:
        gated = logits[:-1]
        return self.sureness(gated) > constants(self.thresholds[: len(gated)], gated)

    def slack(self, logits: Tensor) -> Tensor:
        gated = logits[:-1]
        values = self.thresholds[: len(gated)]
        ends = tuple(math.copysign(1, -value) if math.isinf(value) else None for value in values)
        finite = tuple(0.0 if math.isinf(value) else value for value in values)
        units = tuple(self.unit(value) for value in finite)
        return with_fixed((self.sureness(gated) - constants(finite, gated)) / constants(units, gated), ends)

    def log_slack(self, logits: Tensor) -> Tensor:
        gated = logits[:-1]
        values = self.thresholds[: len(gated)]
        ends = tuple(map(self.fixed, values))
        free = tuple(value if end is None else 0.5 for value, end in zip(values, ends, strict=True))
        return with_fixed(self._log_slack(gated, free), ends)


class EntropyAtOnce(OfLastExit):
    """The rule that leaves where the softmax entropy is below the threshold.

    Args:
        policy: The rule.
        thresholds: Its K - 1 thresholds, in nats.
    """

    def __init__(self, policy: Policy, thresholds: tuple[float, ...]) -> None:
        super().__init__(policy)
        self.thresholds = thresholds

    def leave(self, logits: Tensor) -> Tensor:
        gated = logits[:-1]
        return entropy(gated) < constants(self.thresholds[: len(gated)], gated)

    def slack(self, logits: Tensor) -> Tensor:
        gated, values, ends = self._finite(logits, 1.0)
        units = tuple(max(abs(value), 1e-6) for value in values)
        return with_fixed((constants(values, gated) - entropy(gated)) / constants(units, gated), ends)

    def log_slack(self, logits: Tensor) -> Tensor:
        gated, values, ends = self._finite(logits, FAR)
        # The 1e-5 in the deployed entropy is accounted for in the threshold; it matters for gates with very low ones.
        with torch.no_grad():
            p = torch.softmax(gated, dim=-1).clamp_min(1e-30)
            reduced = constants(values, gated) + (p * torch.log1p(1e-5 / p)).sum(-1)
        found = torch.where(reduced > 0, torch.log(reduced.clamp_min(1e-30)) - log_entropy(gated), -FAR)
        return with_fixed(found, ends)

    def _finite(self, logits: Tensor, end: float) -> tuple[Tensor, tuple[float, ...], tuple[float | None, ...]]:
        """Return the logits of gated exits, thresholds with a number for infinite ones, and the slacks of these."""
        gated = logits[:-1]
        values = self.thresholds[: len(gated)]
        ends = tuple(math.copysign(end, value) if math.isinf(value) else None for value in values)
        return gated, tuple(1.0 if math.isinf(value) else value for value in values), ends


class FixedAtOnce(OfLastExit):
    """The rule that always leaves at one exit.

    Args:
        policy: The rule.
        exit_: The exit, 1-based.
    """

    def __init__(self, policy: Policy, exit_: int) -> None:
        super().__init__(policy)
        self.exit = exit_

    def leave(self, logits: Tensor) -> Tensor:
        return self.slack(logits) > 0

    def slack(self, logits: Tensor) -> Tensor:
        signs = tuple(1.0 if k == self.exit else -1.0 for k in range(1, len(logits)))
        return constants(signs, logits).expand(-1, logits.shape[1])

    def log_slack(self, logits: Tensor) -> Tensor:
        return FAR * self.slack(logits)


def confidence_at_once(policy: Policy, thresholds: tuple[float, ...], unit: Callable[[float], float]) -> SureAtOnce:
    """Return the rule that leaves where the largest softmax probability is above the threshold."""
    return SureAtOnce(policy, thresholds, unit, sureness=confidence, log_slack=log_confidence_slacks, fixed=fixed_confidence)


def log_confidence_slacks(logits: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return ``log(1 - threshold) - log(1 - confidence)``, ``(K - 1, B)``, for thresholds between 0 and 1."""
    top = torch.arange(logits.shape[-1], device=logits.device) == logits.argmax(-1, keepdim=True)
    rest = torch.logsumexp(logits.masked_fill(top, -torch.inf), -1) - torch.logsumexp(logits, -1)
    return constants([math.log(1 - threshold) for threshold in thresholds], logits) - rest


def fixed_confidence(threshold: float) -> float | None:
    """Return the log slack of a gate whose threshold no probability reaches, or every one exceeds; None for any other."""
    return None if 0 < threshold < 1 else FAR if threshold <= 0 else -FAR


def slack_unit(threshold: float, *, is_share: bool) -> float:
    """Return the unit of a gate's slack: the distance to 1 if the measure is a share, else the size of the threshold.

    A distance of nearly 0 would make every slack huge, and the gate all that an attack sees; so the second is at least 1.
    """
    return max(abs(1 - threshold), 1e-6) if is_share else max(abs(threshold), 1.0)


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """Return a number for each gate, or exit, as ``(n, 1)``, on the device and in the precision of ``like``.

    They are copied to a device once: a copy at every step would make the host wait for it.
    """
    return _constants(tuple(values), like.dtype, like.device)


@lru_cache(maxsize=1024)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)[:, None]


def with_fixed(found: Tensor, ends: Sequence[float | None]) -> Tensor:
    """Return ``found`` ``(K - 1, B)`` with the rows of gates that are fixed replaced; None stands for those that are not."""
    if all(end is None for end in ends):
        return found
    fixed = constants([0.0 if end is None else 1.0 for end in ends], found) > 0
    return torch.where(fixed, constants([end or 0.0 for end in ends], found), found)

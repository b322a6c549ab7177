"""Temperature scaling of the exits, under any rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from exitbench.models.at_once import AtOnce, at_once, constants
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import Policy


@dataclass(frozen=True)
class Tempered(Policy):
    """A rule that sees each exit's logits divided by a temperature (Guo et al., ICML 2017).

    Attributes:
        rule: The rule.
        temperatures: One positive number for each of the K exits.

    Raises:
        InvalidValue: If a temperature is not positive and finite.
    """

    rule: Policy
    temperatures: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(float(t) for t in self.temperatures))
        if not all(math.isfinite(t) and t > 0 for t in self.temperatures):
            raise InvalidValue(f"temperatures are positive numbers, got {', '.join(f'{t:g}' for t in self.temperatures)}")

    @property
    def calibration(self) -> str | None:
        """Digest of the data and procedure that set the rule's thresholds; None if they were given by hand."""
        return getattr(self.rule, "calibration", None)

    @property
    def needs_scores(self) -> bool:
        return self.rule.needs_scores

    @property
    def saturates(self) -> bool:  # type: ignore[override]
        return self.rule.saturates

    @property
    def has_gradient(self) -> bool:
        return self.rule.has_gradient

    def check(self, n_exits: int) -> None:
        self.rule.check(n_exits)
        if len(self.temperatures) != n_exits:
            raise InvalidValue(f"a network of {n_exits} exits needs {n_exits} temperatures, got {len(self.temperatures)}")

    def condition(self, k: int) -> str:
        return f"{self.rule.condition(k)} at T = {self.temperatures[k]:.3g}"

    def leaves(self, seen: Tensor) -> Tensor:
        return self.rule.leaves(tempered(seen, self.temperatures))

    def predicted(self, seen: Tensor) -> Tensor:
        return self.rule.predicted(tempered(seen, self.temperatures))

    def slack(self, seen: Tensor) -> Tensor:
        return self.rule.slack(tempered(seen, self.temperatures))

    def log_slack(self, seen: Tensor) -> Tensor:
        return self.rule.log_slack(tempered(seen, self.temperatures))

    def opening(self, seen: Tensor, label: Tensor) -> Tensor:
        return self.rule.opening(tempered(seen, self.temperatures), label)

    def at_once(self) -> AtOnce:
        return _TemperedAtOnce(self, at_once(self.rule), self.temperatures)


class _TemperedAtOnce(AtOnce):
    """A rule on the logits of all exits, each divided by its temperature."""

    def __init__(self, policy: Policy, rule: AtOnce, temperatures: tuple[float, ...]) -> None:
        super().__init__(policy)
        self.rule, self.temperatures = rule, temperatures

    def leave(self, logits: Tensor) -> Tensor:
        return self.rule.leave(tempered(logits, self.temperatures))

    def slack(self, logits: Tensor) -> Tensor:
        return self.rule.slack(tempered(logits, self.temperatures))

    def log_slack(self, logits: Tensor) -> Tensor:
        return self.rule.log_slack(tempered(logits, self.temperatures))

    def opening(self, logits: Tensor, label: Tensor) -> Tensor:
        return self.rule.opening(tempered(logits, self.temperatures), label)

    def predicted(self, logits: Tensor) -> Tensor:
        return self.rule.predicted(tempered(logits, self.temperatures))


def tempered(logits: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Return the logits ``(k, ..., classes)`` of the first k exits, each divided by its temperature."""
    scale = constants(temperatures[: len(logits)], logits)
    return logits / scale.view(-1, *[1] * (logits.ndim - 1))


def fitted_temperatures(logits: Tensor, labels: Tensor) -> tuple[float, ...]:
    """Fit one temperature per exit: that with the smallest mean cross-entropy on held-out images.

    The cross-entropy is convex in the inverse temperature; its minimum is found by golden-section search between 1/20 and 20,
    to four digits.

    Args:
        logits: Logits ``(K, N, classes)``.
        labels: Labels ``(N,)``.
    """
    return tuple(_fitted(each.double(), labels) for each in logits)


def _fitted(logits: Tensor, labels: Tensor) -> float:
    def loss(inverse: float) -> float:
        return float(F.cross_entropy(inverse * logits, labels))

    low, high = 1 / 20, 20.0
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-5 * high:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(f"{2 / (low + high):.4g}")

"""The rule that waits until several heads in a row agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from exitbench.models.at_once import AtOnce, OfLastExit
from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import whole_number
from exitbench.models.policies import Policy
from exitbench.models.rules.registry import register_policy
from exitbench.models.uncertainty import FAR


@register_policy("patience", values="n", summary="n heads in a row name the same class (PABEE)")
@dataclass(frozen=True)
class PatiencePolicy(Policy):
    """A policy that leaves at the first exit where n heads in a row name the same class (PABEE; Zhou et al., NeurIPS 2020).

    The gate has an exact slack: the n heads agree if for some class the smallest of their margins, its logit minus the largest of
    the others, is positive. The slack is the largest such number over the classes, in the unit of logits; its gradient is that of
    the one logit pair that decides.

    Attributes:
        n: Number of heads in a row, at least 2; that exit is the earliest.
        calibration: Digest of the data and procedure that chose n; None if it was given by hand.

    Raises:
        InvalidValue: If n is below 2: one head always agrees with itself.
    """

    n: int
    calibration: str | None = None

    def __post_init__(self) -> None:
        if self.n < 2:
            raise InvalidValue(f"patience takes a number of heads that agree, at least 2, got {self.n}; exit:1 leaves at once")

    @classmethod
    def of_values(cls, values: Sequence[str], n_exits: int, calibration: str | None = None) -> Self:
        if len(values) != 1:
            raise InvalidValue("patience takes one number of heads")
        return cls(whole_number(values[0]), calibration)

    @property
    def values(self) -> tuple[str, ...]:
        return (str(self.n),)

    @classmethod
    def members(cls, n_exits: int, calibration: str | None = None) -> list[Self]:
        return [cls(n, calibration) for n in range(2, n_exits + 1)]

    def check(self, n_exits: int) -> None:
        if self.n > n_exits:
            raise InvalidValue(f"{self.n} heads that agree are more than the network's {n_exits} exits")

    def condition(self, k: int) -> str:
        return f"{self.n} heads in a row agree" if k + 1 >= self.n else "none leaves"

    def leaves(self, seen: Tensor) -> Tensor:
        if len(seen) < self.n:
            return torch.zeros(seen.shape[1], dtype=torch.bool, device=seen.device)
        named = seen[-self.n :].argmax(-1)
        return (named == named[-1]).all(0)

    def at_once(self) -> AtOnce:
        return _PatienceAtOnce(self, self.n)

    def slack(self, seen: Tensor) -> Tensor:
        return self._agreement(seen, None)

    def log_slack(self, seen: Tensor) -> Tensor:
        if len(seen) < self.n:
            return torch.full_like(seen[-1, :, 0], -FAR)
        return self._agreement(seen, None)

    def opening(self, seen: Tensor, label: Tensor) -> Tensor:
        if len(seen) < self.n:
            return torch.full_like(seen[-1, :, 0], -FAR)
        return self._agreement(seen, label)

    def _agreement(self, seen: Tensor, label: Tensor | None) -> Tensor:
        """Return the largest, over all classes but ``label``, of the smallest margin of that class among the last n heads."""
        if len(seen) < self.n:
            return torch.full_like(seen[-1, :, 0], -1.0)
        return _best_but(_margins(seen[-self.n :]).amin(0), label)


class _PatienceAtOnce(OfLastExit):
    """The rule on all exits at once: heads in a row are windows over the exits."""

    def __init__(self, policy: Policy, n: int) -> None:
        super().__init__(policy)
        self.n = n

    def leave(self, logits: Tensor) -> Tensor:
        named = logits[:-1].argmax(-1)
        if len(named) < self.n:
            return torch.zeros_like(named, dtype=torch.bool)
        heads = named.unfold(0, self.n, 1)
        agree = (heads == heads[..., -1:]).all(-1)
        return torch.cat([torch.zeros_like(named[: self.n - 1], dtype=torch.bool), agree])

    def slack(self, logits: Tensor) -> Tensor:
        return self._agreement(logits, None, -1.0)

    def log_slack(self, logits: Tensor) -> Tensor:
        return self._agreement(logits, None, -FAR)

    def opening(self, logits: Tensor, label: Tensor) -> Tensor:
        return self._agreement(logits, label, -FAR)

    def _agreement(self, logits: Tensor, label: Tensor | None, shut: float) -> Tensor:
        gated = logits[:-1]
        never = torch.full_like(gated[: self.n - 1, :, 0], shut)
        if len(gated) < self.n:
            return never
        return torch.cat([never, _best_but(_margins(gated).unfold(0, self.n, 1).amin(-1), label)])


def _margins(heads: Tensor) -> Tensor:
    """Return each class's logit minus the largest of the others, ``(..., classes)``."""
    values = heads.topk(2, dim=-1).values
    first, second = values[..., :1], values[..., 1:]
    return heads - torch.where(heads == first, second, first)


def _best_but(values: Tensor, label: Tensor | None) -> Tensor:
    """Return the largest of ``values`` ``(..., B, classes)`` over all classes but ``label`` ``(B,)``."""
    if label is not None:
        # Not one_hot, which synchronises the device to check that labels are in range.
        values = values.masked_fill(torch.arange(values.shape[-1], device=label.device) == label[:, None], -torch.inf)
    return values.amax(-1)

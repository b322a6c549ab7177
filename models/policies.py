"""Exit policies: they decide from the logits so far who leaves, and what is predicted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from exitbench.models.at_once import AtOnce, EntropyAtOnce, FixedAtOnce, SureAtOnce, at_once, confidence_at_once, slack_unit
from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import real_number, whole_number
from exitbench.models.uncertainty import FAR, confidence, entropy, log_confidence_slack, log_entropy


class Policy(ABC):
    """A rule that decides exit by exit who leaves: the first exit whose gate opens is taken, else the last.

    A rule sees what a deployed network has computed so far. In all methods ``seen`` are the logits ``(k + 1, B, classes)`` of the
    exits 0 to k, in order; the gate is that of exit k, the last of them. The last exit of a network has no gate. A network with
    gate heads of its own carries their scores in its logits (``exitbench.models.gate_scores``).

    A subclass implements ``leaves`` and ``check``, and ``slack`` if attacks are to know in which direction a gate opens: without
    it they search without gradients. ``exitbench.models.rules.registry`` gives a rule a name on the command line.
    """

    saturates: ClassVar[bool] = False
    """Whether ``slack`` loses its gradient where a softmax is saturated."""

    @abstractmethod
    def leaves(self, seen: Tensor) -> Tensor:
        """Return whether each input leaves at the last exit seen, ``(B,)`` bool."""

    def predicted(self, seen: Tensor) -> Tensor:
        """Return what is predicted for inputs that leave here, ``(B, classes)``, as logits: by default those of this exit."""
        return seen[-1]

    def slack(self, seen: Tensor) -> Tensor:
        """Return how far the gate is open, ``(B,)``: positive where inputs leave, relative to the threshold, differentiable.

        Without an implementation of its own, a rule has a slack of 1 or -1 that has no gradient.
        """
        return torch.where(self.leaves(seen), 1.0, -1.0).to(seen.dtype)

    def log_slack(self, seen: Tensor) -> Tensor:
        """Return how far the gate is open, ``(B,)``, in the unit of logits, for search; the sign is that of ``slack``.

        Policies on softmax outputs return a logarithm, whose gradient does not vanish where the softmax is saturated.
        """
        return self.slack(seen)

    def opening(self, seen: Tensor, label: Tensor) -> Tensor:
        """Return how far the gate is open, ``(B,)``, as ``log_slack`` does, for predictions other than ``label`` ``(B,)``.

        It is positive only where the gate is open; where a rule opens on agreement of exits, they would have to agree on another.
        """
        return self.log_slack(seen)

    def at_once(self) -> AtOnce:
        """Return this rule on all exits at once, for speed: by default one that asks exit by exit."""
        return AtOnce(self)

    @abstractmethod
    def check(self, n_exits: int) -> None:
        """Raise ``ValueError`` if this policy cannot run on a network of ``n_exits`` exits."""

    def condition(self, k: int) -> str:
        """Return the condition for an input to leave at exit ``k``, 0-based, in a few words, for reports."""
        return "the rule"

    @property
    def needs_scores(self) -> bool:
        """Whether the network must have gate heads."""
        return False

    @property
    def has_gradient(self) -> bool:
        """Whether attacks get a gradient of the gates."""
        return type(self).slack is not Policy.slack or type(self).log_slack is not Policy.log_slack

    @classmethod
    def of_values(cls, values: Sequence[str], n_exits: int, calibration: str | None = None) -> Self:
        """Return the rule that is written ``NAME:VALUE,VALUE,...``.

        Args:
            values: What stands behind the colon, split at the commas; empty for none.
            n_exits: Number of exits of the network.
            calibration: Digest of the data and procedure that gave the values; None if they were given by hand.

        Raises:
            InvalidValue: If the values do not describe a rule.
        """
        raise InvalidValue(f"{cls.__name__} has no written form")

    @property
    def values(self) -> tuple[str, ...]:
        """What stands behind the colon in the rule's written form, so that ``of_values`` gives the rule back."""
        return ()

    @classmethod
    def members(cls, n_exits: int, calibration: str | None = None) -> Sequence[Self]:
        """Return the rules of this class that calibration chooses from, the cheapest first; none where thresholds are set."""
        return ()

    @classmethod
    def is_family(cls) -> bool:
        """Return whether rules of this class can be set on held-out images."""
        return bool(cls.members(2))

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the index ``(B,)`` (0-based, int64) of the exit taken, from the logits ``(K, B, classes)`` of all exits."""
        self.check(len(logits))
        stays = ~at_once(self).leave(logits)
        return stays.long().cumprod(0).sum(0)  # the number of shut gates before the first that is open


def predictions(logits: Tensor, policy: Policy) -> Tensor:
    """Return what is predicted at each exit, ``(K, B, classes)``, as logits, from the logits of the exits, of the same shape."""
    return logits if type(policy).predicted is Policy.predicted else at_once(policy).predicted(logits)


def deployed_logits(logits: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Return the prediction ``(B, classes)`` at the exit taken, as logits, and the exit ``(B,)``, from ``(K, B, classes)``."""
    taken, found = policy(logits), predictions(logits, policy)
    return found.gather(0, taken[None, :, None].expand(1, -1, found.shape[-1]))[0], taken


@dataclass(frozen=True)
class Thresholds(Policy):
    """A policy with one threshold per exit but the last, which a measure of each exit's uncertainty is compared with.

    Attributes:
        thresholds: K - 1 numbers; infinities are allowed.
        calibration: Digest of the data and procedure that set the thresholds; None if they were given by hand.

    Raises:
        InvalidValue: If a threshold is NaN.
    """

    saturates = True

    thresholds: tuple[float, ...]
    calibration: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
        if any(math.isnan(t) for t in self.thresholds):
            raise InvalidValue("a threshold is NaN")

    @classmethod
    def of_values(cls, values: Sequence[str], n_exits: int, calibration: str | None = None) -> Self:
        return cls(tuple(real_number(value) for value in values), calibration)

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(repr(threshold) for threshold in self.thresholds)

    @classmethod
    def is_family(cls) -> bool:
        return True

    def check(self, n_exits: int) -> None:
        if len(self.thresholds) != n_exits - 1:
            raise InvalidValue(f"a network of {n_exits} exits needs {n_exits - 1} thresholds, got {len(self.thresholds)}")

    @classmethod
    @abstractmethod
    def uncertainty(cls, seen: Tensor) -> Tensor:
        """Return a number ``(B,)`` that is the smaller the surer the last exit seen is."""

    @classmethod
    def of_cuts(cls, cuts: Sequence[float], calibration: str | None = None) -> Self:
        """Return the policy that leaves where ``uncertainty`` is below these numbers, one per exit but the last."""
        return cls(tuple(cuts), calibration)


class SureAbove(Thresholds):
    """A policy that leaves where a measure of sureness is above its threshold; ``is_share`` if that is at most 1."""

    is_share: ClassVar[bool] = False

    @classmethod
    def uncertainty(cls, seen: Tensor) -> Tensor:
        return -cls.sureness(seen)

    @classmethod
    @abstractmethod
    def sureness(cls, seen: Tensor) -> Tensor:
        """Return how sure the last exit seen is, ``(B,)``."""

    @classmethod
    def of_cuts(cls, cuts: Sequence[float], calibration: str | None = None) -> Self:
        return cls(tuple(-cut for cut in cuts), calibration)

    def leaves(self, seen: Tensor) -> Tensor:
        return self.sureness(seen) > self.thresholds[len(seen) - 1]

    def slack(self, seen: Tensor) -> Tensor:
        threshold = self.thresholds[len(seen) - 1]
        if math.isinf(threshold):
            return torch.full_like(seen[-1, :, 0], math.copysign(1, -threshold))
        return (self.sureness(seen) - threshold) / self.unit(threshold)

    def unit(self, threshold: float) -> float:
        """Return the unit of ``slack`` at a threshold. From 1 on, which no share exceeds, the measure is taken for no share."""
        return slack_unit(threshold, is_share=self.is_share or (self.saturates and threshold < 1))


@dataclass(frozen=True)
class EntropyPolicy(Thresholds):
    """A policy that leaves at the first exit whose softmax entropy (nats) is below its threshold ("Triple Wins", section 3.1)."""

    @classmethod
    def uncertainty(cls, seen: Tensor) -> Tensor:
        return entropy(seen[-1])

    def leaves(self, seen: Tensor) -> Tensor:
        return entropy(seen[-1]) < self.thresholds[len(seen) - 1]

    def at_once(self) -> AtOnce:
        return EntropyAtOnce(self, self.thresholds)

    def condition(self, k: int) -> str:
        return f"entropy < {self.thresholds[k]:.4g}"

    def slack(self, seen: Tensor) -> Tensor:
        threshold = self.thresholds[len(seen) - 1]
        if math.isinf(threshold):
            return torch.full_like(seen[-1, :, 0], math.copysign(1, threshold))
        return (threshold - entropy(seen[-1])) / max(abs(threshold), 1e-6)

    def log_slack(self, seen: Tensor) -> Tensor:
        logits, threshold = seen[-1], self.thresholds[len(seen) - 1]
        if math.isinf(threshold):
            return torch.full_like(logits[:, 0], math.copysign(FAR, threshold))
        # The 1e-5 in the deployed entropy is accounted for in the threshold; it matters for gates with very low ones.
        with torch.no_grad():
            p = torch.softmax(logits, dim=-1).clamp_min(1e-30)
            reduced = threshold + (p * torch.log1p(1e-5 / p)).sum(-1)
        return torch.where(reduced > 0, torch.log(reduced.clamp_min(1e-30)) - log_entropy(logits), -FAR)


@dataclass(frozen=True)
class ConfidencePolicy(SureAbove):
    """A policy that leaves at the first exit whose largest softmax probability is above its threshold (MSDNet, ICLR 2018)."""

    is_share = True

    @classmethod
    def sureness(cls, seen: Tensor) -> Tensor:
        return confidence(seen[-1])

    def at_once(self) -> SureAtOnce:
        return confidence_at_once(self, self.thresholds, self.unit)

    def condition(self, k: int) -> str:
        return f"confidence > {self.thresholds[k]:.4g}"

    def log_slack(self, seen: Tensor) -> Tensor:
        return log_confidence_slack(seen[-1], self.thresholds[len(seen) - 1])


@dataclass(frozen=True)
class FixedExit(Policy):
    """A policy that always leaves at one exit; ``exit`` is 1-based, as users count."""

    exit: int

    @classmethod
    def of_values(cls, values: Sequence[str], n_exits: int, calibration: str | None = None) -> Self:
        if len(values) != 1:
            raise InvalidValue("one exit is named")
        return cls(whole_number(values[0]))

    @property
    def values(self) -> tuple[str, ...]:
        return (str(self.exit),)

    def leaves(self, seen: Tensor) -> Tensor:
        return torch.full((seen.shape[1],), len(seen) == self.exit, device=seen.device)

    def slack(self, seen: Tensor) -> Tensor:
        return torch.full_like(seen[-1, :, 0], 1.0 if len(seen) == self.exit else -1.0)

    def log_slack(self, seen: Tensor) -> Tensor:
        return FAR * self.slack(seen)

    def at_once(self) -> AtOnce:
        return FixedAtOnce(self, self.exit)

    def condition(self, k: int) -> str:
        return "all leave" if k == self.exit - 1 else "none leaves"

    def check(self, n_exits: int) -> None:
        if not 1 <= self.exit <= n_exits:
            raise InvalidValue(f"exit {self.exit} is outside 1..{n_exits}")

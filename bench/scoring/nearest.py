"""How near stored images come to breaking each sample, and what the nearest one still lacks, from logits alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import violations
from exitbench.models.policies import Policy, predictions
from exitbench.models.within_reach import exits_within_reach

LACKED = ("an earlier gate shut", "its gate open", "the wrong class ahead")
"""What an image may lack to leave wrongly at an exit, in the order of ``violations``."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Nearest:
    """The stored image that comes nearest to breaking each sample.

    An image breaks a sample at an exit if a wrong class is ahead there, the exit's gate is open, and all earlier gates are shut.
    Its distance there is the largest of what these lack, in the unit of logits (``exitbench.attacks.deployed_loss``); its
    distance is the smallest over the exits that some image may take under the rule.

    Attributes:
        distance: ``(n,)``, positive where no stored image breaks the sample; infinite where no image counts.
        exit: ``(n,)``, the exit at which it is nearest, 0-based.
        target: ``(n,)``, the wrong class that is best there.
        lacked: ``(n,)``, what is lacked most, as a place in ``LACKED``.
        attack: ``(n,)``, name of the attack whose image it is.
    """

    distance: npt.NDArray[np.float64]
    exit: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    lacked: npt.NDArray[np.int64]
    attack: npt.NDArray[np.str_]

    @classmethod
    def unknown(cls, n: int) -> Self:
        """Return what is known of ``n`` samples without any image."""
        zeros = np.zeros(n, dtype=np.int64)
        return cls(np.full(n, np.inf), zeros, zeros, zeros, np.full(n, ""))

    def or_nearer(self, other: Self, rows: npt.NDArray[np.int64]) -> Self:
        """Return the nearer image of both for each sample.

        Args:
            other: Of the samples ``rows`` alone.
            rows: Their indices.
        """
        better = other.distance < self.distance[rows]
        at, new = rows[better], {name: getattr(other, name)[better] for name in self.__dataclass_fields__}
        merged = {}
        for name, values in new.items():
            old = getattr(self, name)
            merged[name] = old.astype(np.result_type(old, values))
            merged[name][at] = values
        return type(self)(**merged)


def nearest_of(logits: Tensor, labels: Tensor, policy: Policy, within: npt.NDArray[np.bool_], attack: str) -> Nearest:
    """Return how near an attack's images come to breaking their samples.

    Args:
        logits: Of all exits on the images, ``(K, B, classes)``.
        labels: ``(B,)``.
        policy: The deployed rule.
        within: ``(B,)``, whether an image lies in the ball; the others do not count, nor do those without finite logits.
        attack: Name of the attack.
    """
    parts = violations(logits, labels, policy)
    reached = torch.full((len(logits), 1), torch.inf, dtype=torch.float64)
    reached[exits_within_reach(policy, len(logits))] = 0
    distance, exit_ = (parts.amax(0).double() + reached).min(0)
    at = exit_[None]
    lacked = parts.gather(1, at[None].expand(len(parts), -1, -1))[:, 0].argmax(0)
    wrong = predictions(logits, policy).scatter(-1, labels.expand(len(logits), -1)[..., None], -torch.inf)
    target = wrong.argmax(-1).gather(0, at)[0]
    counts = torch.from_numpy(within) & logits.isfinite().all(-1).all(0)
    distance = torch.where(counts & ~distance.isnan(), distance, torch.inf)
    return Nearest(distance.numpy(), exit_.numpy(), target.numpy(), lacked.numpy(), np.full(len(labels), attack))

"""The stage of the adaptive attack that aims at one pair of exit and wrong class after another, each from a start of its own.

What is closest to failing often is not what can be made to fail: an ascent towards it takes a sample away from the exit and the
class where it would. So many pairs are tried for a few steps, and those that come closest for longer (successive halving).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.adaptive_search import Search
from exitbench.attacks.deployed_loss import constraints_at, pair_values
from exitbench.attacks.noise import Noise
from exitbench.models.policies import Policy
from exitbench.models.uncertainty import FAR


@dataclass(frozen=True)
class Rung:
    """A part of a round.

    Attributes:
        pairs: Number of pairs tried, each from a random start of its own.
        steps: Gradients for each of them.
        last: Last step size, as a share of the radius.
    """

    pairs: int
    steps: int
    last: float


ROUND = (Rung(12, 10, 1 / 16), Rung(4, 25, 1 / 32), Rung(3, 50, 1 / 32))
POLISH = 55
"""Gradients spent at the end of a round on the closest iterate of all."""

DRAW = 2_000_000
"""Restart of the first start's draw; those of the other stages are below."""

NEVER = 1e6
"""Tries after which pairs come whose exit the rule never takes, such as those behind a fixed exit."""


class PairSearch:
    """The pairs of exit and wrong class of each sample, and what is known of them.

    Args:
        search: The state of the search; what breaks a sample is recorded there.
        policy: The deployed rule.
        noise: The random numbers of the samples.

    Attributes:
        tries: ``(K, C, B)``, how often the first rung has aimed at a pair.
    """

    def __init__(self, search: Search, policy: Policy, noise: Noise) -> None:
        self.search, self.policy, self.noise = search, policy, noise
        self.tries = torch.zeros_like(search.seen)
        self._draws = 0

    def round(self) -> None:
        """Try pairs not yet tried, then those that come closest for longer, until the budget is spent or the round is over."""
        self.climb(ROUND[0], self.tries)
        for rung in ROUND[1:]:
            self.climb(rung, torch.zeros_like(self.tries))
        self.polish()

    def polish(self) -> None:
        """Ascend from the closest iterate of all, at the pair that it is closest at, with small steps."""
        nearest = pair_values(self.search.logits, self.search.y, self.policy)
        self._ascend(self.search.nearest, _largest(nearest), POLISH, first=0.1, last=1 / 128)

    def climb(self, rung: Rung, tries: Tensor) -> None:
        """Ascend, from random starts, the pairs with the fewest ``tries``, the largest values first; the tries are counted."""
        n_exits, n_classes, n = self.search.seen.shape
        for _ in range(min(rung.pairs, n_exits * (n_classes - 1))):
            pair = self._best(tries)
            tries[(*pair, torch.arange(n, device=tries.device))] += 1
            start = self.search.region.start(self.search.x, self.noise, DRAW + self._draws)
            self._draws += 1
            self._ascend(start, pair, rung.steps, first=0.25, last=rung.last)

    def _best(self, tries: Tensor) -> tuple[Tensor, Tensor]:
        """Return exit and class ``(B,)`` of the pair with the largest value among those with the fewest tries."""
        seen = self.search.seen
        last = torch.where(seen > -FAR, tries, tries + NEVER).masked_fill(seen.isneginf(), torch.inf)
        return _largest(seen.masked_fill(last > last.amin((0, 1)), -torch.inf))

    def _ascend(self, start: Tensor, pair: tuple[Tensor, Tensor], steps: int, *, first: float, last: float) -> None:
        k, target = pair
        own = {"k": k, "target": target}
        self.search.ascend(AtPair(self.policy), start, steps, own=own, exits=k, first=first, last=last)


@dataclass(frozen=True)
class AtPair:
    """The smallest constraint of failing at an exit and a class of each sample's own: what it lacks most there.

    Where the rule gives no gradient of its gates, it is the constraint on the class alone.
    """

    policy: Policy

    def __call__(self, logits: Tensor, y: Tensor, knob: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        needed = constraints_at(logits, y, self.policy, own["k"], own["target"])
        return needed.amin(0) if self.policy.has_gradient else needed[-1]


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return exit and class ``(B,)`` of the largest of values ``(K, C, B)``."""
    at = values.flatten(0, 1).argmax(0)
    return at // values.shape[1], at % values.shape[1]

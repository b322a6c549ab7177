"""The deployment of the network under attack, as the factories of attacks get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exitbench.attacks.base import Attack
    from exitbench.models.policies import Policy


@dataclass(frozen=True)
class Deployment:
    """The deployment of a multi-exit network, without its weights.

    Attributes:
        n_exits: Number of exits.
        policy: The deployed rule.
        costs: Cost of each exit, in mmacs; empty if unknown, in which case slowdown attacks are rejected.
        n_classes: number of classes, by which attacks are skipped that need more; None where it is not known.
    """

    n_exits: int
    policy: Policy
    costs: tuple[float, ...] = ()
    n_classes: int | None = None

    def has_classes_for(self, attack: Attack) -> bool:
        """Return whether the network has as many classes as an attack needs, or their number is not known."""
        return self.n_classes is None or attack.least_classes <= self.n_classes

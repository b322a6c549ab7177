"""What the makers of attacks are told of the network under attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exitbench.attacks.base import Attack
    from exitbench.models.policies import Policy


@dataclass(frozen=True)
class Deployment:
    """A multi-exit network as it is deployed, its weights left out.

    Attributes:
        n_exits: number of its exits.
        policy: the rule by which samples leave.
        costs: of each exit (mmacs); empty where they are not known, which slowdown attacks refuse.
        n_classes: number of classes, by which attacks are skipped that need more; None where it is not known.
    """

    n_exits: int
    policy: Policy
    costs: tuple[float, ...] = ()
    n_classes: int | None = None

    def has_classes_for(self, attack: Attack) -> bool:
        """Return whether the network has as many classes as an attack needs, or their number is not known."""
        return self.n_classes is None or attack.least_classes <= self.n_classes

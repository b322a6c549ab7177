"""What the makers of attacks are told of the network under attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exitbench.models.policies import Policy


@dataclass(frozen=True)
class Deployment:
    """A multi-exit network as it is deployed, its weights left out.

    Attributes:
        n_exits: number of its exits.
        policy: the rule by which samples leave.
        costs: of each exit (mmacs); empty where they are not known, which slowdown attacks refuse.
    """

    n_exits: int
    policy: Policy
    costs: tuple[float, ...] = ()

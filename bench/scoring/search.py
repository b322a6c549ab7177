"""What attacks were searched on, and how often the search disagreed with the network that decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Search:
    """The search models of attacks, and how often they disagreed with the plain model.

    Attributes:
        on: Configurations of the search model (``exitbench.models.search_model.SearchConfig``), as text.
        disagreements: Number of images on which search model and plain model disagree on the goal of the attack.
        again: Number of these that only the search model counts as a success; their samples were attacked again on the plain
            model.
        undefined: Number of images that the plain model has no finite logits on; the clean image stands for each.
    """

    on: frozenset[str] = frozenset()
    disagreements: int = 0
    again: int = 0
    undefined: int = 0

    def __add__(self, other: Search) -> Search:
        counts = (self.disagreements + other.disagreements, self.again + other.again, self.undefined + other.undefined)
        return Search(self.on | other.on, *counts)


NO_SEARCH = Search()
"""What attacks without a search model were searched on."""

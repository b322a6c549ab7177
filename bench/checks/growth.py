"""Samples added to a measurement until what it is compared with can be decided, at most those of the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import msgspec

from exitbench.checks.leads import looks
from exitbench.data.split import Batch
from exitbench.store.cell import SLICE
from exitbench.store.trust_result import AscentPath, Controls, Gradients, Hidden, Radii

Numbers = TypeVar("Numbers", Gradients, AscentPath, Radii, Controls, Hidden)


@dataclass(frozen=True)
class Growth:
    """Where further samples come from.

    Attributes:
        more: Makes a batch of the samples ``start..stop - 1``; None if there are no more.
        n: Number of samples of the evaluation: the limit.
    """

    more: Callable[[int, int], Batch] | None
    n: int

    def grown(
        self,
        first: Numbers,
        measure: Callable[[Batch], Numbers],
        joined: Callable[[Numbers, Numbers], Numbers],
        undecided: Callable[[Numbers], bool],
    ) -> Numbers:
        """Return the numbers on as many samples as decide, at most ``n``; most networks need none but the first.

        Args:
            first: Of the first slice.
            measure: Measures the same on further samples.
            joined: Joins the numbers of two sets of samples.
            undecided: Whether more samples are needed.
        """
        sizes = looks(self.n) if self.more is not None else [SLICE]
        numbers = msgspec.structs.replace(first, looks=len(sizes))
        for begun, size in pairwise(sizes):
            if self.more is None or not undecided(numbers):
                break
            for start in range(begun, size, SLICE):
                added = measure(self.more(start, min(start + SLICE, size)))
                numbers = msgspec.structs.replace(joined(numbers, added), looks=len(sizes))
        return numbers

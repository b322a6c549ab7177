"""Samples added to the black-box controls until their comparison with gradients can be decided."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec

from exitbench.checks.controls import leads
from exitbench.checks.leads import looks
from exitbench.data.split import Batch
from exitbench.store.cell import SLICE
from exitbench.store.trust_result import Controls


def grown(first: Controls, measure: Callable[[Batch], Controls], more: Callable[[int, int], Batch] | None, n: int) -> Controls:
    """Return the numbers of the controls on as many samples as decide, at most ``n``.

    Most networks need none but the first: there gradients are ahead.

    Args:
        first: Of the first slice, ``right`` and ``gradients`` included.
        measure: Measures the same on further samples.
        more: Makes a batch of the samples ``start..stop - 1``; None if there are no more.
        n: Number of samples of the evaluation.
    """
    sizes = looks(n) if more is not None else [SLICE]
    numbers = msgspec.structs.replace(first, looks=len(sizes))
    for begun, size in pairwise(sizes):
        if more is None or not _undecided(numbers):
            break
        for start in range(begun, size, SLICE):
            numbers = _joined(numbers, measure(more(start, min(start + SLICE, size))))
    return numbers


def _joined(one: Controls, other: Controls) -> Controls:
    return Controls(
        noise=one.noise + other.noise,
        search=one.search + other.search,
        right=(one.right or ()) + (other.right or ()),
        gradients=(one.gradients or ()) + (other.gradients or ()),
        looks=one.looks,
    )


def _undecided(numbers: Controls) -> bool:
    found = leads(numbers, numbers.gradients or (), len(numbers.right or ()), numbers.looks)
    return any(flag.level == "warning" for flag in found) and not any(flag.level == "failure" for flag in found)

"""The colour and the marker of each network, the same in every figure of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count

from exitbench.report.palette import COLOURS, MARKERS, SHAPES
from exitbench.scoring.evaluation import Evaluation
from exitbench.store.identity import Network
from exitbench.store.run_record import board_name

Looks = Mapping[Network, int]
"""The number of each network's colour and marker."""


def looks_of(evaluations: Iterable[Evaluation], others: Iterable[tuple[Network, str]] = ()) -> dict[Network, int]:
    """Return the number of each network's look: the smallest that no other network of one of its datasets has.

    Networks are taken in the order of their names, so that neither rank, nor rule, nor a filter changes a look.

    Args:
        evaluations: All evaluations of a store.
        others: Further networks and their datasets, such as those that were only timed; they come after the evaluated ones.
    """
    found: dict[Network, int] = {}
    taken: dict[str, set[int]] = {}
    for pairs in ([(each.record.network, each.dataset) for each in evaluations], others):
        _give(pairs, found, taken)
    return found


def _give(pairs: Iterable[tuple[Network, str]], found: dict[Network, int], taken: dict[str, set[int]]) -> None:
    datasets: dict[Network, set[str]] = {}
    for network, dataset in pairs:
        datasets.setdefault(network, set()).add(dataset)
    for network, names in sorted(datasets.items()):
        if network not in found:
            found[network] = next(i for i in count() if not any(i in taken.get(name, ()) for name in names))
        for name in names:
            taken.setdefault(name, set()).add(found[network])


def board_of(evaluation: Evaluation) -> str:
    """Return the name of the board that an evaluation is on: dataset and threat model."""
    return board_name(evaluation.dataset, evaluation.record.threat)


def marker(look: int) -> tuple[int, str]:
    """Return the number of the colour, and the shape as an SVG path; there are 56 different pairs."""
    return look % len(COLOURS), SHAPES[MARKERS[look % len(MARKERS)]]

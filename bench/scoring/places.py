"""Places on a board that its numbers can tell apart: intervals of ranks, and rows of another number of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np

from exitbench.scoring.evaluation import Evaluation, accuracy
from exitbench.scoring.ranking import rank
from exitbench.stats.paired import holm, mcnemar

LEVEL = 0.05
"""Probability that some place of a board is wrong, at most."""


def places(board: Sequence[Evaluation]) -> list[tuple[int, int]]:
    """Return the first and the last place that each row of a board may have, from 1.

    A row is behind those that are told to be better, and before those that are told to be worse. What ``rank`` sets apart before
    it looks at worst cases (not attacked, failed by trust checks, in part) is apart. Of the others, two rows of the same samples
    differ if the exact McNemar test of their worst cases says so, after Holm's correction for all pairs of the board that share
    samples; two of other samples differ if their Wilson 95 % intervals do not overlap.

    Args:
        board: Evaluations of one dataset and threat model, in the order of ``rank``.
    """
    behind = _told_apart(board)
    ahead, after = behind.sum(0), behind.sum(1)
    return [(1 + int(ahead[i]), len(board) - int(after[i])) for i in range(len(board))]


def place_text(place: tuple[int, int]) -> str:
    """Return a place, or the first and the last of several."""
    first, last = place
    return str(first) if first == last else f"{first}-{last}"


def usual_n(board: Sequence[Evaluation]) -> int:
    """Return the number of samples that most rows of a board have; the largest of several."""
    counts = Counter(evaluation.n for evaluation in board)
    return max(counts, key=lambda n: (counts[n], n))


def _told_apart(board: Sequence[Evaluation]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return ``(N, N)``: whether row i is told to be before row j."""
    before = np.zeros((len(board), len(board)), dtype=np.bool_)
    worst = [evaluation.worst for evaluation in board]
    kinds = [rank(evaluation)[:3] for evaluation in board]
    intervals = [accuracy(each)[1:] for each in worst]
    tested: list[tuple[int, int]] = []
    p_values: list[float] = []
    for i, j in combinations(range(len(board)), 2):
        if kinds[i] != kinds[j]:
            before[i, j] = True
        elif _same_samples(board[i], board[j]):
            won, lost = int((worst[i] & ~worst[j]).sum()), int((worst[j] & ~worst[i]).sum())
            tested.append((i, j) if won >= lost else (j, i))
            p_values.append(_mcnemar(max(won, lost), min(won, lost)))
        elif intervals[i][0] > intervals[j][1]:
            before[i, j] = True
    for pair, p in zip(tested, holm(p_values), strict=True):
        before[pair] = p <= LEVEL
    return before


def _same_samples(a: Evaluation, b: Evaluation) -> bool:
    return a.record.samples == b.record.samples


@cache
def _mcnemar(more: int, fewer: int) -> float:
    return mcnemar(fewer, more)

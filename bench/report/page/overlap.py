"""Computes which attack breaks which samples: shares that add up to all samples, and overlaps between attacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exitbench.scoring.evaluation import Bools, Evaluation, Result

SEGMENTS = 8
"""Attacks that have a part of the bar of their own."""
SETS = 8
"""Attacks that have a line of their own in the overlap."""
COMBINATIONS = 14
"""Combinations of attacks shown, the most frequent ones."""


@dataclass(frozen=True)
class Share:
    """A part of all samples.

    Attributes:
        name: of the attack, or in words.
        kind: ``wrong`` on the clean image, ``attack``, ``rest`` (attacks without a part of their own) or ``robust``.
        count: samples.
        share: of all.
        place: among the attacks, from 1; 0 for what is no attack.
    """

    name: str
    kind: str
    count: int
    share: float
    place: int = 0


@dataclass(frozen=True)
class Combination:
    """Samples that exactly these attacks break.

    Attributes:
        members: for each set whether it breaks them.
        count: how many.
    """

    members: tuple[bool, ...]
    count: int


@dataclass(frozen=True)
class Overlap:
    """Sets of broken samples and their exclusive intersections.

    Attributes:
        sets: name and size of each, largest first, what is left of the attacks last.
        combinations: largest first.
        hidden: samples in combinations not shown.
    """

    sets: tuple[tuple[str, int], ...]
    combinations: tuple[Combination, ...]
    hidden: int


def broken(evaluation: Evaluation, result: Result) -> Bools:
    """Return whether each sample is right when clean and broken by an image of ``result`` in the ball, ``(n,)``."""
    return evaluation.clean.correct & ~result.survived


def labels(evaluation: Evaluation) -> dict[int, str]:
    """A name for each attack by its identity, the seed added where two have the same name."""
    names = Counter(attack.name for attack in evaluation.attacks)
    again: Counter[str] = Counter()
    found = {}
    for attack in evaluation.attacks:
        name = attack.name if names[attack.name] == 1 else f"{attack.name} (seed {attack.seed})"
        again[name] += 1
        found[id(attack)] = name if again[name] == 1 else f"{name}, {again[name]}"
    return found


def shares(evaluation: Evaluation) -> list[Share]:
    """Split all samples into wrong when clean, broken by each attack, and robust.

    Attacks are ordered greedily: each breaks the most samples that those before it do not.
    """
    n = evaluation.n
    named = labels(evaluation)
    left = evaluation.clean.correct.copy()
    found = [Share("wrong on the clean image", "wrong", int((~left).sum()), float((~left).mean()))]
    todo = list(evaluation.attacks)
    while todo:
        best = max(todo, key=lambda attack: int((left & ~attack.survived).sum()))
        count = int((left & ~best.survived).sum())
        if not count:
            break
        todo.remove(best)
        left &= best.survived
        found.append(Share(named[id(best)], "attack", count, count / n, len(found)))
    rest = sum(each.count for each in found[1 + SEGMENTS :])
    rest += int((left & ~evaluation.worst).sum())  # what finished cells of unfinished attacks break
    found = found[: 1 + SEGMENTS]
    if rest:
        found.append(Share("other attacks", "rest", rest, rest / n))
    robust = int(evaluation.worst.sum())
    return [*found, Share("robust to all", "robust", robust, robust / n)]


def overlap(evaluation: Evaluation) -> Overlap | None:
    """Return which attacks break the same samples, or None if fewer than two break any."""
    named = labels(evaluation)
    sets = [(named[id(attack)], broken(evaluation, attack)) for attack in evaluation.attacks]
    sets = sorted((each for each in sets if each[1].any()), key=lambda each: -int(each[1].sum()))
    if len(sets) < 2:
        return None
    if len(sets) > SETS:
        others = [each[1] for each in sets[SETS - 1 :]]
        sets = [*sets[: SETS - 1], (f"any of {len(others)} others", np.logical_or.reduce(others))]
    return _overlap([name for name, _ in sets], np.stack([samples for _, samples in sets]))


def _overlap(names: Sequence[str], members: Bools) -> Overlap:
    """From ``(S, n)``: which of the S sets each sample is in."""
    counts = Counter(tuple(bool(each) for each in column) for column in members.T if column.any())
    ordered = sorted(counts.items(), key=lambda each: (-each[1], [not member for member in each[0]]))
    shown = tuple(Combination(pattern, count) for pattern, count in ordered[:COMBINATIONS])
    sizes = tuple((name, int(samples.sum())) for name, samples in zip(names, members, strict=True))
    return Overlap(sizes, shown, sum(count for _, count in ordered[COMBINATIONS:]))

"""The regression test: paired tests of every row at one overall level, and the conditions that must hold besides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from exitbench.analysis.regression.snapshot import Snapshot
from exitbench.scoring.rows import TITLES
from exitbench.stats.paired import Floats, holm, sign_flip
from exitbench.stats.proportions import sign_test

LEVEL, TOLERANCE = 0.05, 0.05
"""Default family-wise error rate, and share by which mean mmacs may rise."""

SUSPICIOUS = 10.0
"""Gain of a row, in percentage points, from which on the baseline is doubted."""

SUSPICIOUS_COST = 30.0
"""Fall of a mean cost, in percent, from which on the baseline is doubted."""

Outcome = Literal["fail", "improved", "pass"]


@dataclass(frozen=True)
class Compared:
    """A compared row.

    Attributes:
        name: Name of the row; ``title`` is for display.
        n: Number of samples.
        before, now: Number of right samples in the baseline and now.
        lost: Indices of samples right before and wrong now.
        won: Indices of samples wrong before and right now.
        p_lost, p_won: p-values of one-sided exact McNemar tests, adjusted (Holm) over all tests for a loss, or for a gain.
        mmacs: Mean cost before and now; None for the worst case.
        p_cost: p-value for a rise of the mean cost, adjusted with ``p_lost``; None if untested (clean, worst case).
        status: Status of the verdicts.
        cost: ``over`` if the mean cost rose beyond tolerance and noise, ``under`` if it fell likewise.
    """

    name: str
    n: int
    before: int
    now: int
    lost: tuple[int, ...]
    won: tuple[int, ...]
    p_lost: float
    p_won: float
    mmacs: tuple[float, float] | None
    p_cost: float | None
    status: Literal["regression", "improvement", "same"]
    cost: Literal["over", "under", "within"]

    @property
    def title(self) -> str:
        """The row's name for people."""
        return TITLES.get(self.name, self.name)

    @property
    def points(self) -> float:
        """Change of the accuracy, in percentage points."""
        return 100 * (self.now - self.before) / self.n

    @property
    def dearer(self) -> float:
        """Relative change of the mean cost; 0 if there is no cost."""
        return self.mmacs[1] / self.mmacs[0] - 1 if self.mmacs else 0.0


@dataclass(frozen=True)
class Judgement:
    """The result of a regression check.

    Attributes:
        rows: The compared rows, in the order of the baseline.
        failures: Labels and messages of failed trust checks.
        unfinished: Attacks, or trust checks, without a result, with the reason.
        level: Family-wise error rate.
        tolerance: Share by which mean mmacs may rise.
    """

    rows: tuple[Compared, ...]
    failures: tuple[str, ...]
    unfinished: tuple[str, ...]
    level: float
    tolerance: float

    @property
    def reasons(self) -> list[str]:
        """The reasons for a failure; empty if there are none."""
        found = [f"not finished: {each}" for each in self.unfinished]
        found += [f"failed trust check: {each}" for each in self.failures]
        found += [f"{row.title}: {-row.points:.2f} points lost, p = {row.p_lost:.2g}" for row in self._of("regression")]
        return found + [self._cost_text(row) for row in self.rows if row.cost == "over"]

    @property
    def improvements(self) -> list[str]:
        """The significant improvements, for which the baseline should be updated."""
        found = [f"{row.title}: {row.points:.2f} points won, p = {row.p_won:.2g}" for row in self._of("improvement")]
        return found + [self._cost_text(row) for row in self.rows if row.cost == "under"]

    @property
    def doubts(self) -> list[str]:
        """Warnings that the baseline may not be what was measured: no change of a network gains so much without a reason."""
        gained = [f"{row.title} by {row.points:.1f} points" for row in self._of("improvement") if row.points >= SUSPICIOUS]
        gained += [
            f"mean mmacs ({row.title}) by {-100 * row.dearer:.0f} %"
            for row in self.rows
            if row.cost == "under" and -100 * row.dearer >= SUSPICIOUS_COST
        ]
        if not gained:
            return []
        return [
            f"WARNING better than the baseline: {', '.join(gained)}. If no change explains this, the baseline may have been "
            "edited: see its history in version control, and measure the commit that it is of again"
        ]

    @property
    def outcome(self) -> Outcome:
        """The outcome: ``fail``, ``improved`` or ``pass``."""
        if self.reasons:
            return "fail"
        return "improved" if self.improvements else "pass"

    def _of(self, status: str) -> list[Compared]:
        return [row for row in self.rows if row.status == status]

    def _cost_text(self, row: Compared) -> str:
        change = f"{'up' if row.dearer > 0 else 'down'} {100 * abs(row.dearer):.1f} %"
        chance = "" if row.p_cost is None else f", p = {row.p_cost:.2g}"
        return f"{row.title}: mean mmacs {change} (tolerance {100 * self.tolerance:g} %{chance})"


def judge(
    baseline: Snapshot,
    now: Snapshot,
    *,
    failures: Sequence[str] = (),
    unfinished: Sequence[str] = (),
    level: float = LEVEL,
    tolerance: float = TOLERANCE,
) -> Judgement:
    """Compare every row that both have, sample by sample.

    On every row, a loss is tested one-sided by McNemar's exact test; on every row of an attack, a rise of the cost is tested by
    random sign flips. Holm's procedure controls the family-wise error rate of all these tests at ``level``; it allows for the
    dependence between rows, which share samples. The cost on clean images is the same in every re-run of the same weights: it
    is compared with the tolerance, without a test. Gains are tested in the same way, as a separate family.

    Args:
        baseline, now: Snapshots of the same samples; see ``exitbench.analysis.regression.identity.differences``.
        failures, unfinished: Reasons for which ``now`` fails whatever it measured.
        level: Family-wise error rate, in (0, 1).
        tolerance: Share by which mean mmacs may rise.

    Raises:
        ValueError: If ``level`` is not in (0, 1), or ``tolerance`` is no finite number from 0 on.
    """
    if not 0 < level < 1 or not 0 <= tolerance < math.inf:
        raise ValueError(f"level {level} must be in (0, 1), tolerance {tolerance} a finite number >= 0")
    pairs = [_pair(baseline, now, name) for name in baseline.rows if name in now.rows]
    lost, dearer = _adjusted([sign_test(len(pair.lost), len(pair.won)) for pair in pairs], pairs, sign=1)
    won, cheaper = _adjusted([sign_test(len(pair.won), len(pair.lost)) for pair in pairs], pairs, sign=-1)
    rows = []
    for pair, p_lost, p_won in zip(pairs, lost, won, strict=True):
        p_cost = dearer.get(pair.name), cheaper.get(pair.name)
        cost = _cost_status(pair.mmacs, p_cost, level, tolerance)
        rows.append(
            Compared(
                pair.name,
                pair.n,
                pair.before,
                pair.now,
                pair.lost,
                pair.won,
                p_lost,
                p_won,
                pair.mmacs,
                p_cost[1] if pair.mmacs and pair.mmacs[1] < pair.mmacs[0] else p_cost[0],
                "regression" if p_lost <= level else "improvement" if p_won <= level else "same",
                cost,
            )
        )
    return Judgement(tuple(rows), tuple(failures), tuple(unfinished), level, tolerance)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A row before and now; ``costs`` are None for the worst case."""

    name: str
    n: int
    before: int
    now: int
    lost: tuple[int, ...]
    won: tuple[int, ...]
    costs: tuple[Floats, Floats] | None

    @property
    def mmacs(self) -> tuple[float, float] | None:
        return None if self.costs is None else (float(self.costs[0].mean()), float(self.costs[1].mean()))


def _pair(baseline: Snapshot, now: Snapshot, name: str) -> _Pair:
    before, after = baseline.rows[name].right, now.rows[name].right
    costs = baseline.costs(name), now.costs(name)
    return _Pair(
        name,
        len(after),
        int(before.sum()),
        int(after.sum()),
        _indices(before & ~after),
        _indices(~before & after),
        None if costs[0] is None or costs[1] is None else (costs[0], costs[1]),
    )


def _indices(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask))


def _adjusted(verdicts: Sequence[float], pairs: Sequence[_Pair], sign: int) -> tuple[list[float], dict[str, float]]:
    """Return p-values of verdicts and of costs, adjusted over all of them (Holm); ``sign`` is 1 to test for a rise."""
    costs = {
        pair.name: sign_flip(sign * (pair.costs[1] - pair.costs[0]))
        for pair in pairs
        if pair.costs is not None and pair.name not in TITLES
    }
    adjusted = holm([*verdicts, *costs.values()])
    return adjusted[: len(verdicts)], dict(zip(costs, adjusted[len(verdicts) :], strict=True))


def _cost_status(
    mmacs: tuple[float, float] | None, p: tuple[float | None, float | None], level: float, tolerance: float
) -> Literal["over", "under", "within"]:
    """Return whether the cost is beyond the tolerance and, where it is tested (``p`` for a rise and a fall), beyond noise."""
    if mmacs is None:
        return "within"
    change = mmacs[1] / mmacs[0] - 1
    if change > tolerance and (p[0] is None or p[0] <= level):
        return "over"
    return "under" if change < -tolerance and (p[1] is None or p[1] <= level) else "within"

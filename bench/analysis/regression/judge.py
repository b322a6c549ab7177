"""The judgement: paired tests of every row, one stated level for all of them, and what else must hold."""

from __future__ import annotations

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
"""Default chance of any false alarm, and share by which mean mmacs may rise."""

Outcome = Literal["fail", "improved", "pass"]


@dataclass(frozen=True)
class Compared:
    """One row: a number of samples right before and now, and which ones changed.

    Attributes:
        name: of the row; ``title`` where people read.
        n: samples.
        before, now: how many are right.
        lost: indices of samples right before and wrong now.
        won: the other way round.
        p_lost, p_won: one-sided exact McNemar tests, adjusted over all tests for a loss, or for a gain (Holm).
        mmacs: mean cost before and now; None for the worst case.
        p_cost: that the mean cost did not rise, adjusted with ``p_lost``; None where it is no test (clean, worst case).
        status: of the verdicts.
        cost: ``over`` where the mean cost rose beyond tolerance and noise, ``under`` where it fell so.
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
        """Change of the share of right samples, in percentage points."""
        return 100 * (self.now - self.before) / self.n

    @property
    def dearer(self) -> float:
        """Relative change of the mean cost; 0 where there is none."""
        return self.mmacs[1] / self.mmacs[0] - 1 if self.mmacs else 0.0


@dataclass(frozen=True)
class Judgement:
    """What a gate found.

    Attributes:
        rows: in the order of the baseline.
        failures: labels and messages of trust checks that failed.
        unfinished: attacks, or trust checks, without a result, and why.
        level: chance that any test raises a false alarm.
        tolerance: share by which mean mmacs may rise.
    """

    rows: tuple[Compared, ...]
    failures: tuple[str, ...]
    unfinished: tuple[str, ...]
    level: float
    tolerance: float

    @property
    def reasons(self) -> list[str]:
        """Why it fails; empty where it does not."""
        found = [f"not finished: {each}" for each in self.unfinished]
        found += [f"not to be believed: {each}" for each in self.failures]
        found += [f"{row.title}: {-row.points:.2f} points lost, p = {row.p_lost:.2g}" for row in self._of("regression")]
        return found + [self._cost_text(row) for row in self.rows if row.cost == "over"]

    @property
    def improvements(self) -> list[str]:
        """What is significantly better, so that the baseline is due."""
        found = [f"{row.title}: {row.points:.2f} points won, p = {row.p_won:.2g}" for row in self._of("improvement")]
        return found + [self._cost_text(row) for row in self.rows if row.cost == "under"]

    @property
    def outcome(self) -> Outcome:
        """``fail``, or ``improved``, or ``pass``."""
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

    A loss of verdicts is tested one-sided on every row by McNemar's exact test, a rise of the cost on every row of an
    attack by random sign flips; Holm's procedure keeps the chance of any false alarm among all of them at ``level``. Rows
    share samples and are far from independent, which Holm allows for. The cost on clean images is the same in every
    re-run of the same weights: it is held to the tolerance alone, without a test. Gains are tested in the same way, as
    a family of their own.

    Args:
        baseline, now: of the same samples; see ``exitbench.analysis.regression.identity.differences``.
        failures, unfinished: what makes ``now`` fail whatever it measured.
        level: chance of any false alarm, in (0, 1).
        tolerance: share by which mean mmacs may rise.
    """
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
    """One row before and now; ``costs`` are None for the worst case."""

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
    """Holm over the tests of all rows' verdicts and of the attacks' costs, ``sign`` 1 for a rise: adjusted p-values of both."""
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
    """Beyond the tolerance, and where that is a test (``p`` for a rise and a fall) beyond noise."""
    if mmacs is None:
        return "within"
    change = mmacs[1] / mmacs[0] - 1
    if change > tolerance and (p[0] is None or p[0] <= level):
        return "over"
    return "under" if change < -tolerance and (p[1] is None or p[1] <= level) else "within"

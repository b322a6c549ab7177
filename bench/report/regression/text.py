"""Texts shared by all outputs of the gate."""

from __future__ import annotations

from dataclasses import dataclass

from exitbench.analysis.regression.judge import Compared, Judgement
from exitbench.analysis.regression.snapshot import Snapshot
from exitbench.models.number_text import cost_text

VERDICTS = {"fail": "FAIL", "improved": "PASS, improved", "pass": "PASS"}
UPDATE = "update the baseline: exitbench check --update"


@dataclass(frozen=True)
class GateReport:
    """The result of a gate with the snapshots compared.

    Attributes:
        judgement: The result.
        baseline, now: The snapshots.
        source: File of the baseline.
    """

    judgement: Judgement
    baseline: Snapshot
    now: Snapshot
    source: str

    @property
    def verdict(self) -> str:
        """The verdict in one word, or three."""
        return VERDICTS[self.judgement.outcome]

    @property
    def subject(self) -> str:
        """Model, data and threat model."""
        subject = self.now.subject
        threat = subject.threat.text
        return f"{self.now.title} on {subject.dataset} test, {threat}, n = {subject.n}"

    @property
    def why(self) -> list[str]:
        """The reasons for the verdict, one per line."""
        if self.judgement.outcome == "improved":
            return [*self.judgement.improvements, *self.judgement.doubts, UPDATE]
        return [*(self.judgement.reasons or ["nothing is significantly worse"]), *self.judgement.doubts]

    @property
    def notes(self) -> list[str]:
        """Notes on the tests, and on other differences."""
        judgement, then, now = self.judgement, self.baseline.subject, self.now.subject
        notes = [
            f"level {judgement.level:g} over all rows together (exact McNemar tests and sign flips of costs, Holm), one-sided; "
            f"mean mmacs may rise by {100 * judgement.tolerance:g} %",
            f"baseline {self.source}: weights {then.training} {then.weights[:12]}, seed {then.seed}; "
            f"now {now.training} {now.weights[:12]}, seed {now.seed}",
        ]
        if now.policy != then.policy:
            notes.append("each under its own policy")
        if self.now.computed_with != self.baseline.computed_with:
            notes.append(f"computed with {self.now.computed_with}; the baseline with {self.baseline.computed_with}")
        return notes


def row_status(row: Compared) -> str:
    """Return the status of a row in a table: that of the verdicts, then that of the cost if it is out of bounds."""
    words = {"regression": "REGRESSION", "improvement": "improved", "same": "ok"}[row.status]
    cost = {"over": "COST", "under": "cheaper", "within": ""}[row.cost]
    return f"{words}, {cost}" if cost and words != "ok" else cost or words


def figures(row: Compared) -> tuple[str, ...]:
    """Return the cells of a row: before, now, change, flips each way, p, mmacs."""
    mmacs = "-" if row.mmacs is None else " -> ".join(map(cost_text, row.mmacs))
    shares = [f"{100 * count / row.n:.2f}" for count in (row.before, row.now)]
    return (*shares, f"{row.points:+.2f}", str(len(row.lost)), str(len(row.won)), f"{row.p_lost:.2g}", mmacs)


HEADINGS = ("baseline %", "now %", "points", "right to wrong", "wrong to right", "p", "mean mmacs")
"""Headings of ``figures``."""


def flips_text(row: Compared, most: int | None = None) -> list[str]:
    """Return the indices of samples that flipped, one line per direction, at most ``most`` of each."""
    found = []
    for direction, indices in (("right to wrong", row.lost), ("wrong to right", row.won)):
        if indices:
            shown = ", ".join(map(str, indices[:most]))
            more = f" and {len(indices) - most} more" if most is not None and len(indices) > most else ""
            found.append(f"{row.title}: {direction}: {shown}{more}")
    return found

"""The public view of an evaluation: its figures, tables and plots."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from exitbench.checks.flag import Flag
from exitbench.models.number_text import cost_text
from exitbench.report.evaluation.tables import attack_table, markdown, summary_table
from exitbench.report.leaderboard.flags import lines
from exitbench.report.leaderboard.table import rows_of
from exitbench.scoring import evaluation as scoring
from exitbench.scoring.between import between_of
from exitbench.scoring.evaluation import Bools, accuracy
from exitbench.scoring.nearest import LACKED

if TYPE_CHECKING:
    from exitbench.report.charts.drawing import Drawing


class Accuracy(NamedTuple):
    """A share of samples in [0, 1], with its Wilson 95 % interval."""

    value: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} - {100 * high:.1f})"


class Evaluation:
    """The results of an evaluation: a network's accuracy, clean and under attack, with its deployed exit rule.

    ``exitbench.evaluate`` and ``exitbench.load_results`` return it. All accuracies are shares in [0, 1] of the same n samples.

    Attributes:
        scored: The evaluation sample by sample (``exitbench.scoring.evaluation``), from which reports are made.
        results: Folder that it is stored in; None if it was not stored.
    """

    def __init__(self, scored: scoring.Evaluation, results: Path | None = None) -> None:
        self.scored, self.results = scored, results

    @property
    def model(self) -> str:
        """Name of the network."""
        return str(self.scored.record.model)

    @property
    def threat_model(self) -> str:
        """Dataset, norm and radius, as ``cifar10 Linf 8/255``."""
        record = self.scored.record
        return f"{self.scored.dataset} {record.threat.text}"

    @property
    def policy(self) -> str:
        """The deployed exit rule, as ``--policy`` takes it."""
        return str(self.scored.record.policy)

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.scored.n

    @property
    def clean(self) -> Accuracy:
        """Accuracy on the clean images."""
        return _accuracy(self.scored.clean.correct)

    @property
    def worst_case(self) -> Accuracy | None:
        """Share of samples that no stored attack breaks: the robust accuracy to report. It is an upper bound.

        None if no attack has been finished on any sample.
        """
        return _accuracy(self.scored.worst) if self.scored.attacked else None

    @property
    def attacks(self) -> pd.DataFrame:
        """One row per attack, indexed by its name: accuracy and interval, mean cost in mmacs, passes per sample, and more.

        The columns are those of the leaderboard's CSV (docs/leaderboard.md); unfinished attacks have their reason as ``status``.
        """
        return attack_table(self.scored)

    @property
    def samples(self) -> pd.DataFrame:
        """One row per sample: ``clean``, ``worst``, and one column per attack, true where the deployed rule stays right."""
        columns = {"clean": self.scored.clean.correct, "worst": self.scored.worst}
        for attack in self.scored.attacks:
            columns.setdefault(attack.name, self.scored.robust(attack))
        return pd.DataFrame(columns, index=pd.RangeIndex(self.n, name="sample"))

    @property
    def nearest(self) -> pd.DataFrame:
        """One row per sample that is neither broken nor certified, the nearest to failing first, indexed by sample.

        ``distance`` is what the nearest stored image lacks to break the sample, in logits; ``exit`` is where, from 1;
        ``wrong_class`` is the class that would be predicted; ``lacked`` is what is missing most; ``attack`` is whose image it is.
        """
        found, between = self.scored.nearest, between_of(self.scored)
        if found is None or between is None:
            return pd.DataFrame(columns=["distance", "exit", "wrong_class", "lacked", "attack"])
        samples = list(between.samples)
        columns = {
            "distance": found.distance[samples],
            "exit": found.exit[samples] + 1,
            "wrong_class": found.target[samples],
            "lacked": [LACKED[k] for k in found.lacked[samples]],
            "attack": found.attack[samples],
        }
        return pd.DataFrame(columns, index=pd.Index(samples, name="sample"))

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The flags of the trust checks, failures first. If ``checked`` is true, an empty tuple means that nothing was found."""
        return self.scored.flags

    @property
    def checked(self) -> bool:
        """Whether the trust checks were run."""
        return self.scored.checked

    @property
    def mean_mmacs(self) -> float:
        """Mean cost on the clean images, in 10^6 multiply-accumulates, every head on the way included."""
        return self.scored.mean_cost(self.scored.clean)

    @property
    def exit_counts(self) -> list[int]:
        """Number of clean samples that leave at each exit, exit 1 first."""
        return self.scored.exit_counts(self.scored.clean)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows of the leaderboard's CSV: clean, every attack, and the worst case."""
        return pd.DataFrame(rows_of(self.scored))

    def to_markdown(self) -> str:
        """Return the summary as a Markdown table: accuracy, interval and mean cost of every attack."""
        return markdown(summary_table(self.scored))

    def to_latex(self) -> str:
        """Return the summary as a LaTeX table (packages: booktabs)."""
        table = summary_table(self.scored)
        aligned = "l" + "r" * (table.shape[1] - 1)
        text: str = (
            table.style.hide(axis="index")
            .format(escape="latex")
            .format_index(escape="latex", axis=1)
            .to_latex(column_format=aligned, hrules=True)
        )
        return text

    def plot(self) -> Drawing:
        """Return a figure of the accuracies, clean, under each attack, and in the worst case, with 95 % intervals.

        A notebook shows it, ``save`` writes it.
        """
        from exitbench.report.evaluation.plot import draw_evaluation

        return draw_evaluation(self.scored)

    def __repr__(self) -> str:
        found = [
            f"{self.model} on {self.threat_model}, n = {self.n}, policy {_short(self.policy)}",
            f"  clean       {self.clean}",
            f"  worst case  {self.worst_case or '-'}   over {len(self.scored.attacks)} attacks",
            f"  mean cost   {cost_text(self.mean_mmacs)} mmacs",
        ]
        found += [f"  note        {self.scored.record.note}"] if self.scored.record.note else []
        found += [f"  {line.kind}: {line.label}: {line.message}" for line in lines(self.scored)]
        found += [f"  unfinished: {each.name}: {each.reason}" for each in self.scored.unfinished]
        return "\n".join(found)

    def _repr_html_(self) -> str:
        title = escape(f"{self.model} on {self.threat_model}, n = {self.n}, policy {_short(self.policy)}")
        table = summary_table(self.scored).to_html(index=False, escape=True, border=0)
        flags = "".join(
            f"<li><strong>{escape(line.kind)}</strong>: {escape(line.label)}: {escape(line.message)}</li>"
            for line in lines(self.scored)
        )
        note = escape(self.scored.record.note or "")
        parts = [f"<strong>{title}</strong>", note]
        above = "".join(f"<p>{part}</p>" for part in parts if part)
        return f"<div>{above}{table}{f'<ul>{flags}</ul>' if flags else ''}</div>"


def _accuracy(correct: Bools) -> Accuracy:
    value, low, high = accuracy(np.asarray(correct))
    return Accuracy(value, (low, high))


def _short(policy: str) -> str:
    return policy if len(policy) <= 60 else f"{policy[:57]}..."

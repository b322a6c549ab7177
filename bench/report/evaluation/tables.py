"""One evaluation as a table: every figure by attack, and the few that a paper or a notebook shows."""

from __future__ import annotations

import re

import pandas as pd

from exitbench.models.number_text import cost_text
from exitbench.report.leaderboard.table import rows_of
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.ranking import WORST
from exitbench.scoring.rows import TITLES
from exitbench.store.run_record import CLEAN

_FIGURES = (
    *("attack", "method", "seed", "accuracy", "ci_low", "ci_high", "mmacs", "slowdown_ratio", "savings_erased", "exits_taken"),
    *("exit_accuracy", "distance", "within", "forwards", "backwards", "status"),
)


def attack_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return one row per attack, finished or not, indexed by its name, with the figures of the leaderboard's CSV."""
    rows = [row for row in rows_of(evaluation) if row["attack"] not in (CLEAN, WORST)]
    return pd.DataFrame(rows, columns=list(_FIGURES)).set_index("attack")


def summary_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return what is shown: attack, accuracy and its 95 % interval in per cent, mean cost in mmacs, gradients per sample."""
    rows = []
    for row in rows_of(evaluation):
        done = "accuracy" in row
        rows.append(
            {
                "attack": TITLES.get(row["attack"], row["attack"]),
                "accuracy %": f"{100 * row['accuracy']:.1f}" if done else row["status"],
                "95 % interval": f"{100 * row['ci_low']:.1f} - {100 * row['ci_high']:.1f}" if done else "",
                "mean mmacs": cost_text(row["mmacs"]) if "mmacs" in row else "",
                "gradients": f"{row['backwards']:.0f}" if "backwards" in row and row["attack"] != CLEAN else "",
            }
        )
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """Return a table of texts as Markdown; what Markdown would read as markup is escaped."""
    lines = [table.columns, ["---", *("---:" for _ in table.columns[1:])], *table.to_numpy()]
    cells = [[_escaped(str(cell)) if i != 1 else str(cell) for cell in line] for i, line in enumerate(lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))

"""One evaluation as a plot: accuracy clean, under each attack, and in the worst case."""

from __future__ import annotations

from matplotlib.figure import Figure

from exitbench.report.style import styled
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.rows import TITLES, rows_of
from exitbench.stats.proportions import wilson


@styled
def draw_evaluation(evaluation: Evaluation) -> Figure:
    """Return horizontal bars with 95 % intervals, from clean at the top to the worst case at the bottom."""
    record, n = evaluation.record, evaluation.n
    names, shares, below, above = [], [], [], []
    for name, row in rows_of(evaluation).items():
        low, high = wilson(int(row.right.sum()), n)
        share = float(row.right.mean())
        names.append(TITLES.get(name, name))
        shares.append(100 * share)
        below.append(100 * max(0.0, share - low))
        above.append(100 * max(0.0, high - share))
    figure = Figure(figsize=(6.5, 0.9 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    colours = ["0.75", *("#4c78a8" for _ in names[2:]), "#b2182b"]
    axes.barh(names, shares, xerr=[below, above], color=colours, error_kw={"lw": 1, "capsize": 2})
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy under the deployed exit rule, %")
    axes.set_title(f"{record.model}, {evaluation.dataset} {record.threat.text}, n = {n}", loc="left")
    return figure

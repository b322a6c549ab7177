"""A comparison as a plot: both accuracies row by row, and their paired difference."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitbench.analysis.compare.pairs import Comparison
from exitbench.report.charts.looks import Looks, looks_of
from exitbench.report.compare.terminal import name_of
from exitbench.report.style import network_style, styled, unmathematical

_APART = 0.16  # of A and B within a row, in rows


@styled
def draw_comparison(found: Comparison, looks: Looks | None = None) -> Figure:
    """Draw both accuracies with Wilson's intervals on the left, and B minus A with Newcombe's on the right, row by row.

    Args:
        found: What to draw.
        looks: Of the networks of their store, so that they look the same in every figure; of these two alone by default. Where
            both are one network, B is hollow.
    """
    looks = {**looks_of([found.a, found.b]), **(looks or {})}
    rows = len(found.pairs)
    figure = Figure(figsize=(9.5, 1.9 + 0.42 * rows), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, (letter, each, other) in enumerate((("A", found.a, found.b), ("B", found.b, found.a))):
        look, same = looks[each.record.network], looks[each.record.network] == looks[other.record.network]
        _shares(left, found, i, f"{letter}: {unmathematical(name_of(each, other))}", look, hollow=same and i == 1)
    low = [100 * (pair.difference - pair.interval[0]) for pair in found.pairs]
    high = [100 * (pair.interval[1] - pair.difference) for pair in found.pairs]
    differences = [100 * pair.difference for pair in found.pairs]
    right.axvline(0, color="0.6", lw=1, zorder=1)
    right.errorbar(differences, range(rows), xerr=[low, high], fmt="s", color="black", markersize=5)
    left.set_yticks(range(rows), [unmathematical(pair.title) for pair in found.pairs])
    left.set_ylim(rows - 0.5, -0.5)
    left.set_xlim(-3, 103)
    for axes, title in ((left, "accuracy (%), 95 % intervals"), (right, "B - A (points), paired 95 % intervals")):
        axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=1)
    record = found.a.record
    figure.suptitle(f"{record.dataset} test, {record.threat.text}, n = {record.n}")
    return figure


def _shares(axes: Axes, found: Comparison, i: int, label: str, look: int, *, hollow: bool) -> None:
    counts = [(pair.a, pair.share_a) if i == 0 else (pair.b, pair.share_b) for pair in found.pairs]
    shares = [100 * count / pair.n for (count, _), pair in zip(counts, found.pairs, strict=True)]
    low = [max(0.0, share - 100 * interval[0]) for share, (_, interval) in zip(shares, counts, strict=True)]
    high = [max(0.0, 100 * interval[1] - share) for share, (_, interval) in zip(shares, counts, strict=True)]
    heights = [row + (_APART if i else -_APART) for row in range(len(shares))]
    colour, marker = network_style(look)
    inside = "white" if hollow else colour
    axes.errorbar(shares, heights, xerr=[low, high], fmt=marker, color=colour, markerfacecolor=inside, markersize=6, label=label)

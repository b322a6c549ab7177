"""Which columns the page's table has, what they are called there, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exitbench.report.leaderboard.table import COLUMNS

Screen = Literal["phone", "tablet", "desktop"]


@dataclass(frozen=True)
class Column:
    """A column of the page's table.

    Attributes:
        key: In links and in ``Row.cells``.
        title: Heading.
        meaning: What it means, in a sentence or two.
        number: Whether it sorts and aligns as a number.
        shown: To begin with.
        least: The smallest screen on which it is shown to begin with.
    """

    key: str
    title: str
    meaning: str
    number: bool = True
    shown: bool = True
    least: Screen = "desktop"


OWN = (
    Column(
        "rank",
        "#",
        "Place on this board. Places such as 2-4 are a tie: the exact McNemar tests of the worst cases (Holm's correction, 5 % "
        "for the board) do not tell these rows apart; rows of other samples tie where their intervals overlap. Rows that fail a "
        "trust check come last.",
        least="tablet",
    ),
    Column(
        "model", "network", "Architecture and training of the network; a click opens its details.", number=False, least="phone"
    ),
    Column(
        "worst",
        "worst case %",
        "The headline. Share of images that are classified correctly when clean and under every attack. It is an upper bound: a "
        "stronger attack can only lower it.",
        least="phone",
    ),
    Column("worst_ci", "worst case interval", "Wilson's 95 % interval of the worst case.", number=False),
    Column(
        "certified",
        "certified %",
        "Share of images that no attack can break, proven. The true robust accuracy lies between this floor and the worst case.",
        least="phone",
    ),
    Column(
        "clean",
        "clean %",
        "Share of clean images that the deployed exit rule classifies correctly.",
        least="phone",
    ),
    Column("clean_ci", "clean interval", "Wilson's 95 % interval of the clean accuracy.", number=False),
    Column(
        "mmacs",
        "mean cost (mmacs)",
        "Mean cost of a clean image in mmacs, which are millions of multiply-accumulates: all that ran until the image left, "
        "every classifier on the way included.",
        least="phone",
    ),
    Column(
        "erased",
        "savings lost %",
        "How much of what early exits save is lost under the costliest slowdown attack. 100: every image goes to the last exit. "
        "Negative: attacked images are cheaper.",
        least="tablet",
    ),
    Column(
        "trust",
        "trust checks",
        "What the checks of the evaluation found, failures first. The numbers are in the network's details.",
        number=False,
        least="tablet",
    ),
    Column("strongest", "strongest attack", "The single attack that leaves the fewest images correct.", number=False),
    Column("paper", "paper", "The paper that the architecture is from.", number=False),
    Column(
        "n",
        "images",
        "Number of test images, the first of the test split. Marked where most rows of the board have another number.",
    ),
    Column("status", "attacks run", "Whether every attack of the suite was run, so that worst cases compare.", number=False),
    Column("dataset", "dataset", "Always its test split.", number=False, shown=False),
    Column(
        "threat",
        "threat model",
        "Norm and radius of the ball of allowed changes, for pixels in [0, 1].",
        number=False,
        shown=False,
    ),
    Column(
        "network",
        "kind",
        "Whether images may leave early, and whether zero weights are left out of its cost (sparse).",
        number=False,
        shown=False,
    ),
    Column("defence", "defence", "How the weights were trained, and against what.", number=False, shown=False),
    Column("family", "family", "Family of architectures.", number=False, shown=False),
    Column("year", "year", "Year of the architecture's paper.", shown=False),
    Column("extra_data", "extra data", "Images beyond the dataset's own training images.", number=False, shown=False),
    Column("parameters", "parameters", "Number of trained parameters, in millions.", shown=False),
    Column("id", "name in commands", "How the network is named on the command line and in the CSV.", number=False, shown=False),
    Column(
        "training", "weights' name", "How these weights are named on the command line and in the CSV.", number=False, shown=False
    ),
    Column("exits", "exits", "Number of exits.", shown=False),
    Column(
        "certified_mmacs",
        "certified cost (mmacs)",
        "The highest mean cost that any attack can cause, proven.",
        shown=False,
    ),
    Column("leaves", "under it %", "Share of images that stay correct under the strongest attack.", shown=False),
    Column(
        "any_exit",
        "every exit correct %",
        "Share of images for which every exit stays correct on every stored image, whether that exit is taken or not.",
        shown=False,
    ),
    Column("attacks", "attacks", "Number of finished attacks; those that a selection chooses from count as well.", shown=False),
)
"""The page's own columns."""

TITLES = {
    "weights": "digest of the weights",
    "source": "weights made by",
    "policy": "exit rule",
    "calibration": "digest of the calibration",
    "data": "digest of the data",
    "mmacs_dense": "mean cost, zeros counted (mmacs)",
    "sparsity": "share of zero weights",
    "mflops_paper": "cost as in the paper (MFLOPs)",
    "latency_ms": "latency (ms)",
    "latency_on": "latency measured on",
    "exits_taken": "images per exit",
    "exit_accuracy": "accuracy of each exit",
}
"""What columns of the CSV are called on the page, where their own names say little."""

_LEFT_OUT = {
    *("attack", "method", "seed", "accuracy", "ci_low", "ci_high", "slowdown_ratio", "savings_erased", "efficacy"),
    *("distance", "within", "forwards", "backwards", "status", "flags", "norm", "eps", "grid", "accuracy_any_exit"),
}
"""Columns of the CSV that say nothing of the clean images, or that the page's own columns say."""

OF_THE_CSV = tuple(name for name in COLUMNS if name not in _LEFT_OUT | {column.key for column in OWN})
"""Columns of the CSV that can be shown on the page, too."""


def of_the_csv() -> list[Column]:
    """Return the columns of the CSV that can be shown, too: hidden at first."""
    return [Column(name, TITLES.get(name, name), _sentence(COLUMNS[name]), shown=False) for name in OF_THE_CSV]


def _sentence(meaning: str) -> str:
    return f"{meaning[:1].upper()}{meaning[1:]}."

"""Verdicts, derived from stored logits alone: whether each sample is robust, and what broke it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exitbench.attacks.presets import matrix_names
from exitbench.attacks.registry import Goal
from exitbench.checks.flag import Flag
from exitbench.scoring.nearest import Nearest
from exitbench.scoring.search import NO_SEARCH, Search
from exitbench.scoring.slowdown import Slowed, slowed
from exitbench.stats.proportions import wilson
from exitbench.store.certificate import Certificate
from exitbench.store.run_record import RunRecord
from exitbench.store.trust_result import TrustResult
from exitbench.timing.latency import Latency

Bools = npt.NDArray[np.bool_]

CostFigure = Literal["mmacs", "mmacs_dense", "mflops_paper"]
"""How the cost of an exit is counted."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value: a result is itself alone
class Result:
    """One attack on one model's samples.

    Attributes:
        name: as asked for.
        goal: what it raises: the deployed rule's ``error``, or its ``cost``.
        summary: how it was run, in a few words.
        spec: the resolved attack.
        seed: of its noise.
        correct: ``(n,)`` the deployed prediction is right on the attack's image.
        any_exit_wrong: ``(n,)`` some exit is wrong there, taken or not, and the image lies in the ball.
        exits: ``(n,)`` 0-based exit taken there.
        exit_accuracy: ``(K,)`` accuracy of each exit there.
        within: ``(n,)`` its image lies in the threat model's ball; false for images that say nothing about it.
        distance: mean distance of its images, in the threat model's norm.
        forwards, backwards: mean passes per sample.
        seconds: mean per sample, on the machine that computed it.
        implementation: package and version, for attacks that are another package's.
        computed_with: versions and device, one text for each combination.
        search: what it was searched on.
    """

    name: str
    goal: Goal
    summary: str
    spec: Mapping[str, Any]
    seed: int
    correct: Bools
    any_exit_wrong: Bools
    exits: npt.NDArray[np.int64]
    exit_accuracy: tuple[float, ...]
    within: Bools
    distance: float
    forwards: float
    backwards: float
    seconds: float
    implementation: str | None
    computed_with: frozenset[str]
    search: Search = NO_SEARCH

    @property
    def survived(self) -> Bools:
        """Whether no image of the threat model breaks each sample, ``(n,)``."""
        return self.correct | ~self.within

    @property
    def is_slowdown(self) -> bool:
        """Whether the attack raises the cost rather than the error."""
        return self.goal == "cost"

    @property
    def method(self) -> str:
        """How it was run, in a few words, and by whose package; ``-`` where there is nothing to say."""
        return ", ".join(part for part in (self.summary, self.implementation) if part) or "-"


@dataclass(frozen=True)
class Unfinished:
    """An attack with missing cells.

    Attributes:
        name: Name of the attack.
        reason: Why cells are missing.
        cells: Number of cells that are stored.
        undefined: Number of their images that the plain model has no finite logits on.
    """

    name: str
    reason: str
    cells: int = 0
    undefined: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one model under one policy, on the same n samples and threat model.

    Attributes:
        record: One of the merged run records; they agree in all but attacks, trust checks, seed and note.
        clean: The result on clean images.
        attacks: Results of the finished attacks, in order.
        unfinished: Attacks with missing cells.
        survived_unfinished: ``(n,)`` bool, false where a finished cell of an unfinished attack breaks the sample.
        unfinished_any_exit_wrong: ``(n,)`` bool, true where such a cell makes some exit wrong.
        probes: Measurements of the trust checks; empty if they have not been run.
        probe_error: Error of the trust checks; None if there was none.
        attacked_settings: Settings of probes, as JSON, whose gradient attacks on every exit are finished.
        flags: Flags of the trust checks and of the stored cells, failures first.
        records: All merged run records.
        latency: Latency of each exit, if measured.
        nearest: How near stored images come to breaking each sample; None if it was not computed.
        verified: Whether all images behind it are in the store, or `verify` has scored here those that its clean accuracy and its
            worst case stand on.
        figures_alone: Names of attacks whose images are not among these, or not all of them.
        certificate: What was proven of it; None if nothing was tried.
        knows_data: Whether the samples are those of the dataset named, as far as their digests are known.
    """

    record: RunRecord
    clean: Result
    attacks: tuple[Result, ...]
    unfinished: tuple[Unfinished, ...]
    survived_unfinished: Bools
    unfinished_any_exit_wrong: Bools
    probes: tuple[TrustResult, ...] = ()
    probe_error: str | None = None
    attacked_settings: frozenset[str] = frozenset()
    flags: tuple[Flag, ...] = ()
    records: tuple[RunRecord, ...] = ()
    latency: Latency | None = None
    certificate: Certificate | None = None
    knows_data: bool = True
    verified: bool = True
    figures_alone: tuple[str, ...] = ()
    nearest: Nearest | None = None

    @property
    def dataset(self) -> str:
        """Name of the dataset; samples that are not those of the dataset named go by their digest, on a board of their own."""
        return self.record.dataset if self.knows_data else f"unknown-data-{self.record.data[:12]}"

    @property
    def dataset_summary(self) -> str:
        """The dataset in a line."""
        if self.knows_data:
            return self.record.dataset_summary
        return f"unknown data: said to be {self.record.dataset}, whose samples have other digests"

    @property
    def checked(self) -> bool:
        """Whether the trust checks have been run under every setting."""
        return bool(self.probes) and self.probe_error is None

    @property
    def failures(self) -> list[Flag]:
        """The flags of level ``failure``: the results are not valid."""
        return [flag for flag in self.flags if flag.level == "failure"]

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.clean.correct)

    @property
    def complete(self) -> bool:
        """Whether the whole matrix of attacks is finished, so that the worst case is comparable with others."""
        finished = {attack.name for attack in self.attacks if attack.within.all()}
        return "cascade" in finished or matrix_names(self.record.n_exits) <= finished

    @property
    def attacked(self) -> bool:
        """Whether any cell of an attack is stored; without one there is no worst case."""
        return bool(self.attacks) or any(each.cells for each in self.unfinished)

    def robust(self, attack: Result) -> Bools:
        """Return whether each sample is right on the clean image and on the attack's, in the ball or not, ``(n,)``."""
        return self.clean.correct & attack.correct

    @property
    def worst(self) -> Bools:
        """Whether each sample is robust to all stored cells, ``(n,)``, those of unfinished attacks included: the headline."""
        robust = self.clean.correct & self.survived_unfinished
        for attack in self.attacks:
            robust &= attack.survived
        return robust

    @property
    def any_exit_robust(self) -> Bools:
        """Whether no stored image, including the clean one, makes any exit wrong, taken or not, ``(n,)``.

        It is never above ``worst``: the lowest that ``worst`` could fall to if an attacker could choose the exit on these.
        """
        wrong = self.unfinished_any_exit_wrong.copy()
        for result in (self.clean, *self.attacks):
            wrong |= result.any_exit_wrong
        return ~wrong

    def strongest(self) -> Result | None:
        """The single attack of the threat model that leaves the fewest samples robust; the first one if several do."""
        bounded = [attack for attack in self.attacks if attack.within.all()]
        return min(bounded, key=lambda attack: int(self.robust(attack).sum()), default=None)

    def first_to_break(self, result: Result) -> int:
        """Return the number of samples that ``result`` breaks and neither the clean image nor an earlier attack does.

        Raises:
            ValueError: If ``result`` does not belong to this evaluation.
        """
        left = np.ones(self.n, dtype=np.bool_)
        for earlier in (self.clean, *self.attacks):
            if earlier is result:
                return int((left & ~result.survived).sum())
            left &= earlier.survived
        raise ValueError(f"{result.name} is not of this evaluation")

    def computed_with(self) -> str:
        """Library versions and devices of all results, sorted."""
        return "; ".join(sorted({text for result in (self.clean, *self.attacks) for text in result.computed_with}))

    @property
    def search(self) -> Search:
        """The search models of all attacks together."""
        return sum((attack.search for attack in self.attacks), Search())

    @property
    def sparsity(self) -> float:
        """Share of the network's weights that are zero; 0 where it is not sparse."""
        return self.record.sparsity or 0.0

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators without a formula, so that mmacs is a lower bound; empty where everything was counted."""
        return self.record.uncounted

    def costs(self, figure: CostFigure = "mmacs") -> tuple[float, ...]:
        """The cost of each exit; ``mmacs_dense`` are the mmacs where the network is not sparse.

        Raises:
            ValueError: ``mflops_paper`` of a network that it is not defined for.
        """
        record = self.record
        if figure == "mmacs_dense":
            return record.mmacs_dense or record.mmacs
        found = record.mflops_paper if figure == "mflops_paper" else record.mmacs
        if found is None:
            raise ValueError(f"{figure} is not defined for {record.model}")
        return found

    def mean_mflops_paper(self, result: Result) -> float | None:
        """Mean cost of the exits taken in the paper's figure; None for a network that it is not defined for."""
        return self.mean_cost(result, "mflops_paper") if self.record.mflops_paper else None

    def mean_cost(self, result: Result, figure: CostFigure = "mmacs") -> float:
        """Mean cost of the exits taken."""
        return float(np.asarray(self.costs(figure))[result.exits].mean())

    def mean_latency(self, result: Result) -> float | None:
        """Mean milliseconds of the exits taken, one image at a time; None where no exit that stops the network was timed."""
        if self.latency is None or not self.latency.stops:
            return None
        medians = np.array([median for _, median, _ in self.latency.one])
        return float(medians[result.exits].mean())

    def slowed(self, result: Result) -> Slowed:
        """Return how much the images of ``result`` cost compared with the clean images, in mmacs."""
        return slowed(self.clean.exits, result.exits, self.record.mmacs)

    def exit_counts(self, result: Result) -> list[int]:
        """Return the number of samples that take each exit."""
        counts = np.bincount(result.exits, minlength=self.record.n_exits)
        return [int(count) for count in counts]


def accuracy(correct: Bools) -> tuple[float, float, float]:
    """Return the share of true values and its Wilson 95 % interval."""
    successes, n = int(correct.sum()), len(correct)
    return successes / n, *wilson(successes, n)

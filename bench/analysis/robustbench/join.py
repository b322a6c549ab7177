"""Joins published accuracies with the multiply-accumulates of the architectures and with evaluations measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from exitbench.analysis.robustbench.published import PublishedEntry
from exitbench.attacks.regions import Norm
from exitbench.data.cards import dataset_card
from exitbench.errors import UserError
from exitbench.models.foreign import ForeignModelError
from exitbench.models.zoo.package import robustbench_version
from exitbench.models.zoo.robustbench_entry import entry_names, find_entry
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.ranking import rank
from exitbench.store.identity import Deployed

DATASET = "cifar10"

Count = float | str
"""10^6 multiply-accumulates of one image, or the reason why they could not be counted."""


@dataclass(frozen=True)
class Costed:
    """A published entry with its cost.

    Attributes:
        entry: The published entry.
        mmacs: 10^6 multiply-accumulates of one image; None if they could not be counted.
        status: ``ok``, or why they could not.
        on_front: Whether no other reliable entry is at most as expensive and more robust.
    """

    entry: PublishedEntry
    mmacs: float | None
    status: str
    on_front: bool = False


@dataclass(frozen=True)
class CostAxis:
    """The leaderboard with a cost axis.

    Attributes:
        norm: Norm of the threat model, for ``DATASET`` at its usual radius.
        published: RobustBench's entries, cheapest first, those without a cost last.
        unpublished: Entries of the zoo that are not in the user's file.
        measured: Evaluations measured here under the same threat model.
    """

    norm: Norm
    published: Sequence[Costed]
    unpublished: Sequence[str]
    measured: Sequence[Evaluation]

    @property
    def front(self) -> list[Costed]:
        """The published entries on the Pareto front, cheapest first."""
        return [costed for costed in self.published if costed.on_front]


def count_entries(wanted: Iterable[str], norm: Norm, on_start: Callable[[str], None]) -> dict[str, Count]:
    """Count the cost of each entry of the zoo in ``wanted``, without weights.

    Raises:
        UserError: If robustbench is not installed or cannot be imported.
    """
    try:
        known = entry_names(DATASET, norm)
        counts: dict[str, Count] = {}
        for name in wanted:
            on_start(name)
            counts[name] = _count(name, norm) if name in known else f"not in the model zoo of robustbench {robustbench_version()}"
    except ForeignModelError as error:
        raise UserError(str(error)) from error
    return counts


def _count(name: str, norm: Norm) -> Count:
    entry = find_entry(f"{DATASET}/{norm}/{name}")
    try:
        return entry.mmacs()
    except ForeignModelError as error:
        return str(error)


def join(
    norm: Norm,
    published: Sequence[PublishedEntry],
    counts: Mapping[str, Count],
    evaluations: Sequence[Evaluation],
    zoo: Sequence[str] = (),
) -> CostAxis:
    """Join published accuracies, costs, and evaluations under the same threat model.

    Args:
        norm: Norm of the threat model.
        published: Published accuracies.
        counts: Costs by ``model_id``.
        evaluations: Evaluations; those of another threat model, without a finished attack, or on fewer samples than another of
            the same network and policy are left out.
        zoo: Names of all entries of the zoo.
    """
    costed = []
    for entry in published:
        count = counts.get(entry.model_id, "not counted")
        costed.append(Costed(entry, None, count) if isinstance(count, str) else Costed(entry, count, "ok"))
    costed.sort(key=lambda each: (each.mmacs is None, each.mmacs or 0.0, -each.entry.robust, each.entry.model_id))
    names = {entry.model_id for entry in published}
    unpublished = [name for name in zoo if name not in names]
    return CostAxis(norm, _with_front(costed), unpublished, _largest([each for each in evaluations if _comparable(each, norm)]))


def _with_front(costed: Sequence[Costed]) -> list[Costed]:
    """Mark the Pareto front in a list sorted by cost, and by robustness if costs are equal."""
    best, marked = -1.0, []
    for each in costed:
        on_front = each.mmacs is not None and not each.entry.unreliable and each.entry.robust > best
        best = each.entry.robust if on_front else best
        marked.append(Costed(each.entry, each.mmacs, each.status, on_front))
    return marked


def _largest(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return, for each network and policy, the evaluation on the most samples."""
    found: dict[Deployed, Evaluation] = {}
    for evaluation in sorted(evaluations, key=lambda each: each.n):
        found[evaluation.record.deployed] = evaluation
    return sorted(found.values(), key=rank)


def _comparable(evaluation: Evaluation, norm: Norm) -> bool:
    record = evaluation.record
    usual = dataset_card(DATASET).eps[norm]
    same = (record.dataset, record.norm, record.grid) == (DATASET, norm, None) and abs(record.eps - usual) < 1e-12
    return same and bool(evaluation.attacks)

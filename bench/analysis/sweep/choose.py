"""Chooses the evaluations of a store to sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exitbench.analysis.sweep.pool import same_samples
from exitbench.errors import UserError
from exitbench.scoring.evaluation import Evaluation
from exitbench.store.identity import Network, Threat

Group = list[Evaluation]


@dataclass(frozen=True)
class Wanted:
    """The user's selection; None or empty selects all.

    Attributes:
        models: Names of models.
        dataset, training, norm, eps: Fields of the run record.
        n: Number of samples; None for the most that each network was evaluated on.
        grid: Field of the run record.
    """

    models: tuple[str, ...] = ()
    dataset: str | None = None
    training: str | None = None
    norm: str | None = None
    eps: float | None = None
    n: int | None = None
    grid: int | None = None

    def takes(self, evaluation: Evaluation) -> bool:
        """Return whether an evaluation is selected."""
        record = evaluation.record
        exact = {name: getattr(self, name) for name in ("dataset", "training", "norm", "n", "grid")}
        return (
            (not self.models or record.model in self.models)
            and all(value is None or getattr(record, name) == value for name, value in exact.items())
            and (self.eps is None or abs(record.eps - self.eps) < 1e-12)
        )


def choose(found: Iterable[Evaluation], wanted: Wanted) -> list[Group]:
    """Return the evaluations to sweep, grouped by network, samples and threat model.

    Raises:
        UserError: If there are none, or all networks have one exit.
    """
    everything = list(found)
    chosen = [evaluation for evaluation in everything if wanted.takes(evaluation)]
    absent = [name for name in wanted.models if name not in {evaluation.record.model for evaluation in chosen}]
    if absent or not chosen:
        what = f"no finished evaluation of {', '.join(map(repr, absent))}" if absent else "no finished evaluation of that kind"
        have = "; ".join(dict.fromkeys(map(_told, everything))) or "nothing"
        raise UserError(f"the store holds {what}; it holds: {have}. Evaluate it with `exitbench run`")
    if all(_one_exit(evaluation) for evaluation in chosen):
        names = ", ".join(dict.fromkeys(evaluation.record.model for evaluation in chosen))
        raise UserError(f"{names}: one exit, no threshold to sweep; name a network with several exits as well")
    return _largest(same_samples(chosen))


def _largest(groups: Sequence[Group]) -> list[Group]:
    """Return, of groups that differ only in their number of samples, the one with the most."""
    best: dict[tuple[Network, str, Threat], Group] = {}
    for group in groups:
        record = group[0].record
        key = record.network, record.dataset, record.threat
        if key not in best or record.n > best[key][0].record.n:
            best[key] = group
    return list(best.values())


def _one_exit(evaluation: Evaluation) -> bool:
    return evaluation.record.n_exits == 1


def _told(evaluation: Evaluation) -> str:
    record = evaluation.record
    threat = record.threat.text
    return f"{record.model} ({record.training}) on {record.dataset}, {threat}, n = {record.n}"

"""The details of an evaluation on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exitbench.models.policies import FixedExit
from exitbench.models.policy_text import parse_policy
from exitbench.report.leaderboard.flags import Line, lines
from exitbench.report.page.board import costliest
from exitbench.report.page.near import Near, near
from exitbench.report.page.overlap import Overlap, Share, broken, labels, overlap, shares
from exitbench.report.page.reproduce import Reproduction, reproduction
from exitbench.scoring.evaluation import Evaluation, Result, accuracy
from exitbench.store.run_record import RunRecord


@dataclass(frozen=True)
class Situation:
    """The exits that a kind of image takes.

    Attributes:
        name: of the attack, or ``clean``.
        kind: ``clean``, ``attacked`` or ``slowed``.
        counts, shares: samples leaving at each exit.
        mmacs: mean cost.
    """

    name: str
    kind: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    mmacs: float


@dataclass(frozen=True)
class Exit:
    """An exit, on the clean images and under the strongest attack.

    Attributes:
        number: from 1.
        mmacs: cost of leaving here; ``mmacs_dense`` with zero weights counted, None where none are zero.
        mflops_paper: the same in the paper's figure; None where it is not defined.
        threshold: of its gate; empty for the last.
        taken: how many clean samples leave here.
        own: accuracy of this exit on all clean samples.
        here: accuracy on those that leave here; None where none does.
        attacked_taken, attacked_own: the same under the strongest attack; None without one.
    """

    number: int
    mmacs: float
    mmacs_dense: float | None
    mflops_paper: float | None
    threshold: str
    taken: int
    own: float
    here: float | None
    attacked_taken: int | None
    attacked_own: float | None


@dataclass(frozen=True)
class AttackRow:
    """An attack on this evaluation; ``broken`` and ``only`` count samples right when clean, ``only`` those no other breaks."""

    name: str
    method: str
    seed: int
    accuracy: tuple[float, float, float]
    broken: int
    only: int
    mmacs: float
    forwards: float
    backwards: float
    seconds: float
    outside: float
    distance: float


@dataclass(frozen=True)
class SlowdownRow:
    """A slowdown attack, or the clean images."""

    name: str
    seed: int
    mmacs: float
    ratio: float
    savings_erased: float | None
    efficacy: float | None
    accuracy: tuple[float, float, float]


@dataclass(frozen=True)
class Detail:
    """The details of an evaluation; ``notes`` are findings for the record, which change nothing."""

    worst: tuple[float, float, float] | None
    any_exit: tuple[float, float, float]
    strongest: str
    flags: Sequence[Line]
    notes: Sequence[Line]
    shares: Sequence[Share]
    overlap: Overlap | None
    near: Near | None
    situations: tuple[Situation, ...]
    exits: tuple[Exit, ...]
    attacks: tuple[AttackRow, ...]
    slowdowns: tuple[SlowdownRow, ...]
    reproduce: Reproduction
    computed_with: str

    @property
    def most_taken(self) -> float:
        """Largest share of samples leaving at one exit, in any situation."""
        return max(max(situation.shares) for situation in self.situations)


def detail(evaluation: Evaluation) -> Detail:
    """Return the details of an evaluation."""
    attacked = evaluation.attacked
    strongest, found = evaluation.strongest(), lines(evaluation)
    return Detail(
        worst=accuracy(evaluation.worst) if attacked else None,
        any_exit=accuracy(evaluation.any_exit_robust),
        strongest=strongest.name if strongest else "",
        flags=[line for line in found if line.kind != "info"],
        notes=[line for line in found if line.kind == "info"],
        shares=shares(evaluation) if attacked else (),
        overlap=overlap(evaluation),
        near=near(evaluation),
        situations=_situations(evaluation, strongest),
        exits=tuple(_exit(evaluation, strongest, k) for k in range(evaluation.record.n_exits)),
        attacks=_attacks(evaluation),
        slowdowns=_slowdowns(evaluation),
        reproduce=reproduction(evaluation),
        computed_with=evaluation.computed_with(),
    )


def _situations(evaluation: Evaluation, strongest: Result | None) -> tuple[Situation, ...]:
    slowest = costliest(evaluation)
    wanted = (("clean", "clean", evaluation.clean), (None, "attacked", strongest), (None, "slowed", slowest))
    found = []
    for name, kind, result in wanted:
        if result is not None and (kind != "slowed" or result is not strongest):
            counts = evaluation.exit_counts(result)
            taken = tuple(count / evaluation.n for count in counts)
            found.append(Situation(name or result.name, kind, tuple(counts), taken, evaluation.mean_cost(result)))
    return tuple(found)


def _exit(evaluation: Evaluation, strongest: Result | None, k: int) -> Exit:
    record, clean = evaluation.record, evaluation.clean
    here = clean.correct[clean.exits == k]
    return Exit(
        number=k + 1,
        mmacs=record.mmacs[k],
        mmacs_dense=evaluation.costs("mmacs_dense")[k] if evaluation.sparsity else None,
        mflops_paper=record.mflops_paper[k] if record.mflops_paper else None,
        threshold=_threshold(record, k),
        taken=len(here),
        own=clean.exit_accuracy[k],
        here=float(here.mean()) if len(here) else None,
        attacked_taken=int((strongest.exits == k).sum()) if strongest else None,
        attacked_own=strongest.exit_accuracy[k] if strongest else None,
    )


def _threshold(record: RunRecord, k: int) -> str:
    """Return the condition for a sample to leave at exit ``k``, from 0."""
    n_exits = record.n_exits
    policy = parse_policy(record.policy, n_exits)
    if k == n_exits - 1 and not isinstance(policy, FixedExit):
        return "the rest"
    return policy.condition(k)


def _attacks(evaluation: Evaluation) -> tuple[AttackRow, ...]:
    named = labels(evaluation)
    times = sum((~attack.survived).astype(int) for attack in evaluation.attacks)
    found = []
    for attack in evaluation.attacks:
        breaks = broken(evaluation, attack)
        found.append(
            AttackRow(
                name=named[id(attack)],
                method=attack.method,
                seed=attack.seed,
                accuracy=accuracy(evaluation.robust(attack)),
                broken=int(breaks.sum()),
                only=int((breaks & (times == 1)).sum()),
                mmacs=evaluation.mean_cost(attack),
                forwards=attack.forwards,
                backwards=attack.backwards,
                seconds=attack.seconds,
                outside=1 - float(attack.within.mean()),
                distance=attack.distance,
            )
        )
    return tuple(found)


def _slowdowns(evaluation: Evaluation) -> tuple[SlowdownRow, ...]:
    """Return rows for the clean images and every slowdown attack; empty if there is none."""
    found = [attack for attack in evaluation.attacks if attack.is_slowdown]
    rows = []
    for result in (evaluation.clean, *found) if found else ():
        slowed = evaluation.slowed(result)
        rows.append(
            SlowdownRow(
                result.name if result is not evaluation.clean else "clean",
                result.seed,
                evaluation.mean_cost(result),
                slowed.ratio,
                slowed.savings_erased,
                slowed.efficacy,
                accuracy(evaluation.robust(result)),
            )
        )
    return tuple(rows)

"""Curves: a network under a family of policies, from exit 1 for all inputs to the last exit for all inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exitbench.analysis.sweep.pool import Pool, RuleVerdicts
from exitbench.analysis.sweep.thresholds import at_target, targets
from exitbench.models.policies import FixedExit, Policy
from exitbench.models.policy_text import kind_of, parse_policy, policy_text
from exitbench.models.rules.registry import calibrated_kinds
from exitbench.scoring.evaluation import Bools, Evaluation
from exitbench.store.calibration_logits import HeldOut

Where = Literal["first exit", "target", "last exit", "deployed"]


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Point:
    """A policy and its results on the stored images.

    Attributes:
        where: at which end, at a target cost, or the ``deployed`` rule of an evaluation.
        policy: the rule.
        judged: what is left under it.
        mmacs, mflops_paper: mean cost of the exits taken on the evaluated clean images; the latter None where it is not defined.
        target: mean cost asked for on the calibration images; None elsewhere.
        evaluation: of exactly this rule; None for one that was never evaluated, so that no attack was aimed at it.
    """

    where: Where
    policy: Policy
    judged: RuleVerdicts
    mmacs: float
    mflops_paper: float | None
    target: float | None = None
    evaluation: Evaluation | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """The points of a network.

    Attributes:
        pool: the stored images that they are judged on.
        rule: what its family compares with thresholds; None for a one-exit net, which has deployed points alone.
        points: cheapest target first, between the two ends; then the deployed rules.
        any_exit_robust: ``(n,)`` no stored image makes any exit wrong.
    """

    pool: Pool
    rule: str | None
    points: tuple[Point, ...]
    any_exit_robust: Bools

    @property
    def family(self) -> list[Point]:
        """The swept policies, in the order of their measured costs."""
        return sorted((point for point in self.points if point.where != "deployed"), key=lambda point: point.mmacs)

    @property
    def deployed(self) -> list[Point]:
        """The policies that were evaluated."""
        return [point for point in self.points if point.where == "deployed"]


def rules_of(pool: Pool) -> list[str]:
    """Return the kinds of policies that a network is deployed with, each of which is swept; entropy if only fixed exits are."""
    return [kind for kind in calibrated_kinds() if kind in _kinds(pool)] or ["entropy"]


def _kinds(pool: Pool) -> set[str]:
    return {kind_of(evaluation.record.policy) for evaluation in pool.evaluations}


def sweep(pool: Pool, held: HeldOut, n_points: int) -> list[Curve]:
    """Return a curve for each kind of policy the network is deployed with: ``n_points`` target costs between the two ends.

    Deployed rules that cannot be set, such as a fixed exit or one of the user's own, are points of the first curve.
    """
    n_exits = len(pool.mmacs)
    curves = []
    swept = rules_of(pool)
    for i, rule in enumerate(swept):
        points = [_point(pool, "first exit", FixedExit(1))]
        for target in targets(pool.mmacs, n_points):
            points.append(_point(pool, "target", at_target(held, pool.mmacs, target, rule), target))
        points.append(_point(pool, "last exit", FixedExit(n_exits)))
        points += _deployed(pool, {rule} if i else _kinds(pool) - set(swept[1:]))
        curves.append(Curve(pool, rule, tuple(points), pool.any_exit_robust()))
    return curves


def one_exit(pool: Pool) -> Curve:
    """Return the curve of a one-exit network: a point for comparison."""
    return Curve(pool, None, tuple(_deployed(pool, _kinds(pool))), pool.any_exit_robust())


def _deployed(pool: Pool, kinds: Collection[str]) -> list[Point]:
    found = []
    for evaluation in pool.evaluations:
        record = evaluation.record
        if kind_of(record.policy) in kinds:
            policy = parse_policy(record.policy, len(pool.mmacs), record.calibration)
            found.append(_point(pool, "deployed", policy, evaluation=evaluation))
    return sorted(found, key=lambda point: point.mmacs)


def _point(pool: Pool, where: Where, policy: Policy, target: float | None = None, evaluation: Evaluation | None = None) -> Point:
    judged = pool.judge(policy)
    if evaluation is None:
        same = [each for each in pool.evaluations if each.record.policy == policy_text(policy)]
        evaluation = same[0] if same else None
    paper = pool.record.mflops_paper
    mflops = None if paper is None else _mean(paper, judged)
    return Point(where, policy, judged, _mean(pool.record.mmacs, judged), mflops, target, evaluation)


def _mean(costs: Sequence[float], judged: RuleVerdicts) -> float:
    return float(np.asarray(costs)[judged.exits].mean())

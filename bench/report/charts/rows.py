"""The rows of a chart: numbers of evaluations and of sweeps, as plain JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from exitbench.report.charts.looks import Looks, marker
from exitbench.report.leaderboard.certificate import NOTHING, certified_share
from exitbench.report.leaderboard.flags import verdict
from exitbench.report.page.board import costliest, key_of
from exitbench.report.page.curves import Curves, Interval, SweptCurve, network_of
from exitbench.report.page.identity import identities
from exitbench.scoring.evaluation import Bools, Evaluation, accuracy
from exitbench.stats.proportions import wilson

Row = dict[str, Any]

SIGNS = {"failure": "\u2715", "warning": "!", "not checked": "?"}
"""The sign over the hollow marker of a result that trust checks say something of."""


def rows_of(evaluations: Sequence[Evaluation], looks: Looks) -> list[Row]:
    """Return a row for each evaluation, in the same order.

    Args:
        evaluations: Of one board.
        looks: Of their networks.
    """
    found = zip(evaluations, names_of(evaluations), identities(evaluations), strict=True)
    return [_row(each, name, who.about.parameters, looks) for each, name, who in found]


def curve_rows(evaluations: Sequence[Evaluation], curves: Curves, looks: Looks) -> tuple[list[Row], list[Row]]:
    """Return the points of the networks' curves, and the floors that no rule's worst case falls below.

    Args:
        evaluations: Of one board; a curve belongs to the first evaluation of its network.
        curves: Of sweeps.
        looks: Of their networks.
    """
    points: list[Row] = []
    floors: list[Row] = []
    seen = set()
    for evaluation, name in zip(evaluations, names_of(evaluations), strict=True):
        network = network_of(evaluation.record)
        if network in seen:
            continue
        seen.add(network)
        colour, _ = marker(looks[evaluation.record.network])
        same = {"key": key_of(evaluation), "label": name, "colour": f"var(--c{colour})"}
        for curve in curves.get(network, ()):
            points += _curve(curve, same)
            if curve.floor is not None:
                ends = {"start": curve.points[0].mmacs, "stop": curve.points[-1].mmacs}
                floors.append({**same, **ends, "floor": curve.floor})
    return points, floors


def names_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return a name of each evaluation of a board; those that share one say the exit rule as well, and then their place."""
    who = identities(evaluations)
    often = Counter(each.name for each in who)
    names = [
        f"{each.name}{f', {each.kind}' if often[each.name] > 1 else ''}{_caveats(evaluation)}"
        for each, evaluation in zip(who, evaluations, strict=True)
    ]
    often = Counter(names)
    return [f"{name} (row {i})" if often[name] > 1 else name for i, name in enumerate(names, 1)]


def _caveats(evaluation: Evaluation) -> str:
    """Return what a reader must know of a marker, each behind a comma."""
    found = f", {evaluation.sparsity:.0%} zero weights" if evaluation.sparsity else ""
    found += ", cost a lower bound" if evaluation.uncounted else ""
    return found + ("" if evaluation.complete and not evaluation.unfinished else ", not every attack")


def _row(evaluation: Evaluation, name: str, parameters: int | None, looks: Looks) -> Row:
    colour, shape = marker(looks[evaluation.record.network])
    kind = verdict(evaluation)
    return {
        "key": key_of(evaluation),
        "label": name,
        "colour": f"var(--c{colour})",
        "shape": shape,
        "hollow": evaluation.record.n_exits == 1 or kind != "ok",
        "sign": SIGNS.get(kind, ""),
        "leads": kind != "failure" and not evaluation.uncounted,
        "mmacs": evaluation.mean_cost(evaluation.clean),
        "parameters": None if parameters is None else parameters / 1e6,
        "ms": evaluation.mean_latency(evaluation.clean),
        **shares("clean", evaluation.clean.correct),
        **(_attacked(evaluation) if evaluation.attacked else {}),
        **_slowed(evaluation),
        **_proven(evaluation),
    }


def _attacked(evaluation: Evaluation) -> Row:
    """Return the worst case, which is also where the marker of its range stands."""
    worst = shares("worst", evaluation.worst)
    return {**worst, "range": worst["worst"]}


def shares(name: str, correct: Bools) -> Row:
    """Return the share of true values and its interval, as three fields of a row."""
    return _interval(name, accuracy(correct))


def _interval(name: str, found: Interval) -> Row:
    return dict(zip((name, f"{name}_low", f"{name}_high"), (round(value, 6) for value in found), strict=True))


def _slowed(evaluation: Evaluation) -> Row:
    """Return the mean cost under the costliest slowdown attack, and the share that it leaves right; empty without one."""
    slowest = costliest(evaluation)
    if slowest is None:
        return {}
    return {"slowed": evaluation.mean_cost(slowest), **shares("slowdown", evaluation.robust(slowest))}


def _proven(evaluation: Evaluation) -> Row:
    """Return what is certified, a word where nothing is; empty where nothing was tried."""
    certificate = evaluation.certificate
    if certificate is None:
        return {}
    share = certified_share(certificate)
    if isinstance(share, str):
        return {"proof": NOTHING}
    low, high = wilson(len(certificate.proven.right), certificate.n)
    figures = {"proof": f"{100 * share:.1f} %", "certified_mmacs": certificate.cost()}
    return {**figures, **_interval("certified", (share, low, high))}


def _curve(curve: SweptCurve, same: Row) -> Iterator[Row]:
    for point in curve.points:
        rule = point.policy if point.policy.startswith("exit:") else f"{curve.rule} thresholds"
        family = {"family": f"{same['key']} {curve.rule}", "rule": rule, "mmacs": point.mmacs}
        worst = _interval("worst", point.worst) if point.worst else {}
        yield {**same, **family, **_interval("clean", point.clean), **worst}

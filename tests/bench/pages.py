"""Leaderboards to look at: made of evaluations in memory, so that a test may have any number of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from exitbench.checks.flag import Flag
from exitbench.models.spec import describe
from exitbench.scoring.evaluation import Evaluation, Result
from exitbench.store.run_record import Requested
from tests.bench.evaluated import SETTINGS
from tests.bench.records import entry_of, probe_of, record_of

COSTS = (10.0, 40.0, 100.0)
N = 200


def result(name: str, rng: np.random.Generator, right: float, spec: dict[str, object], exits: np.ndarray) -> Result:
    """A made-up result: each sample right with the probability given."""
    correct = rng.random(N) < right
    return Result(
        name=name,
        goal="cost" if "slow" in name else "error",
        summary="",
        spec=spec,
        seed=0,
        correct=correct,
        any_exit_wrong=~correct | (rng.random(N) < 0.1),
        exits=exits,
        exit_accuracy=tuple(float(each) for each in rng.random(len(COSTS))),
        within=np.ones(N, dtype=np.bool_),
        distance=0.1,
        forwards=20.0,
        backwards=20.0,
        seconds=0.01,
        implementation=None,
        computed_with=frozenset({"a test"}),
    )


@cache
def pgd() -> dict[str, object]:
    from exitbench.attacks.objectives import Mean

    return dict(describe(SETTINGS.ascend(Mean())))  # type: ignore[arg-type]


def evaluation(i: int, model: str = "", dataset: str = "cifar10", n_exits: int = 3, flags: tuple[Flag, ...] = ()) -> Evaluation:
    """The i-th of many, the same every time; its scales vary the costs, so that no two are alike."""
    rng = np.random.default_rng(i)
    costs = [cost * (0.5 + 0.01 * (i % 97)) for cost in COSTS[:n_exits]]
    clean = result("none", rng, 0.9, {"type": "Clean", "version": 1}, rng.integers(0, n_exits, N))
    names = ("average", "single:1", "slowdown:free") if n_exits > 1 else ("single:1",)
    slowdown = {"type": "Slowdown", "steps": 25, "cycles": 1}
    attacks = tuple(
        result(name, rng, 0.4 + 0.3 * rng.random(), slowdown if "slow" in name else pgd(), np.full(N, n_exits - 1))
        for name in names
    )
    model = model or f"net_{i:03d}"
    record = record_of(
        model=model,
        training="trained",
        weights=f"{i:012x}".ljust(64, "0"),
        policy="entropy:0.3,0.4" if n_exits > 1 else "exit:1",
        mmacs=tuple(costs),
        dataset=dataset,
        dataset_summary=f"{dataset}, made up",
        n=N,
        eps=8 / 255,
        requested=Requested(model=model, weights=None, policy=None),
        trust="t",
        attacks=tuple(entry_of(each.name, dict(each.spec)) for each in (clean, *attacks)),
    )
    nothing = np.zeros(N, dtype=np.bool_)
    probes = (probe_of("t"),)
    return Evaluation(record, clean, attacks, (), ~nothing, nothing, probes, flags=flags, records=(record,))


HOSTILE = "<script>alert(1)</script>"


@cache
def few() -> tuple[Evaluation, ...]:
    """Two boards: networks with and without exits, one flagged, one not checked, one with a hostile name and flag."""
    hostile = Flag("bad </script><img src=x onerror=alert(2)>", "warning", {}, "</noscript><script>alert(3)</script>")
    failure = Flag("zero gradients", "failure", {}, "no input gradient on 32 of 32 samples", "at exit 2")
    return (
        evaluation(1, "alpha"),
        evaluation(2, "beta_net"),
        evaluation(3, "gamma", n_exits=1),
        evaluation(4, "masked", flags=(failure,)),
        replace(evaluation(5, "unchecked"), probes=()),
        evaluation(6, HOSTILE, flags=(hostile,)),
        evaluation(7, "delta", dataset="mnist"),
        evaluation(8, "=1+1", dataset="mnist"),
    )

"""Orderings that hold of any stored logits, under any policy."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit, Policy
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.load import result_of
from exitbench.store.cell import Cell
from tests.bench.records import entry_of, record_of

K, N, CLASSES, EPS = 3, 12, 4, 0.1

policies = st.one_of(
    st.builds(EntropyPolicy, st.tuples(*[st.floats(0.01, 1.4)] * (K - 1))),
    st.builds(ConfidencePolicy, st.tuples(*[st.floats(0.25, 0.99)] * (K - 1))),
    st.builds(FixedExit, st.integers(1, K)),
)


def cell(generator: np.random.Generator, labels: np.ndarray, favour: float) -> Cell:
    """A cell of made-up logits, the label's raised by ``favour``, some images outside the ball."""
    logits = generator.normal(0, 2, (K, N, CLASSES)).astype(np.float32)
    logits[:, np.arange(N), labels] += favour
    empty = np.zeros((0, 1, 1, 1), np.float32)
    distances = generator.uniform(0, 1.5 * EPS, N).astype(np.float32)
    header = {"provenance": {"seconds": 0.0, "torch": "", "python": "", "device": "cpu"}}
    none = np.zeros(0, np.int64)
    return Cell(
        "k", header, np.arange(N), labels, np.zeros((N, 32), np.uint8), logits, distances, np.zeros(2, np.int64), none, empty
    )


def evaluation(seed: int, policy: Policy, n_attacks: int) -> Evaluation:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, N)
    record = record_of(eps=EPS, mmacs=(1.0,) * K)
    results = []
    for i in range(n_attacks + 1):
        one = cell(generator, labels, 4.0 if i == 0 else 3.0)
        if i == 0:
            one.distances[:] = 0
        results.append(result_of(entry_of(str(i)), record, [one], policy))
    whole, nothing = np.ones(N, np.bool_), np.zeros(N, np.bool_)
    return Evaluation(record, results[0], tuple(results[1:]), (), whole, nothing)


@given(st.integers(0, 10_000), policies, st.integers(1, 5))
def test_no_exit_wrong_is_below_the_worst_case_is_below_every_attack(seed, policy, n_attacks):
    found = evaluation(seed, policy, n_attacks)
    assert (found.any_exit_robust <= found.worst).all()
    for attack in found.attacks:
        assert (found.worst <= (found.clean.correct & attack.survived)).all()
        if attack.within.all():
            assert (found.worst <= found.robust(attack)).all()
    assert (found.worst <= found.clean.correct).all()


@given(st.integers(0, 10_000), policies, st.integers(1, 4))
def test_another_attack_never_raises_the_worst_case(seed, policy, n_attacks):
    fewer, more = evaluation(seed, policy, n_attacks), evaluation(seed, policy, n_attacks + 1)
    assert (more.worst <= fewer.worst).all() and (more.any_exit_robust <= fewer.any_exit_robust).all()
    assert sum(map(more.first_to_break, (more.clean, *more.attacks))) == N - more.worst.sum()


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_images_outside_the_ball_break_nothing(seed, n_attacks):
    with patch.object(Cell, "within", lambda cell, _norm, _eps, _spec: cell.distances == 0):
        found = evaluation(seed, FixedExit(K), n_attacks)
    assert (found.worst == found.clean.correct).all()
    assert (found.any_exit_robust == ~found.clean.any_exit_wrong).all()

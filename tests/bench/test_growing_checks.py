"""Checks that compare counts: how seldom a faithful network fails them, how surely a masked one, and how the samples grow."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import binom

from exitbench.checks import controls
from exitbench.checks.controls import LEAD, POINTS_DIFFERENCE
from exitbench.checks.further import Further, Subjects
from exitbench.checks.growth import Growth
from exitbench.checks.leads import LEVEL, Pairs, looks, tail
from exitbench.checks.probe import ensure_probe, probe
from exitbench.data.split import Batch
from exitbench.runner.probe_key import READABLE, VERSION, probe_key, probed_batch
from exitbench.scoring.load import _probes
from exitbench.store.cell import SLICE
from exitbench.store.run_record import RunRecord
from exitbench.store.store import Store
from exitbench.store.trust_result import Controls
from tests.bench import evaluated
from tests.bench.records import probe_of
from tests.bench.trained import ready

KINDS = ("both", "black", "white")


@given(st.integers(1, 20_000))
def test_looks_double_up_to_all_samples(n):
    sizes = looks(n)
    assert sizes[0] == min(SLICE, n) and sizes[-1] == n
    assert all(b == min(2 * a, n) > a for a, b in pairwise(sizes))


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.99))
def test_the_tail_is_the_binomials(successes, more, p):
    assert tail(successes, successes + more, p) == pytest.approx(binom.cdf(successes, successes + more, p), abs=1e-12)


@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 25))
def test_more_that_only_gradients_break_speaks_for_them(both, black, white):
    before, after = Pairs(both, black, white), Pairs(both, black, white + 1)
    assert before.more() <= after.more() + 1e-12
    assert before.more_than(LEAD) <= after.more_than(LEAD) + 1e-12


def decided(p_value, pairs_of_samples, sizes):
    """Whether the test fails at one of the looks, for ``(n, 3)`` indicators of ``KINDS``."""
    sums = np.cumsum(pairs_of_samples, axis=0)
    return any(p_value(Pairs(*map(int, sums[size - 1]))) < LEVEL / len(sizes) for size in sizes)


def drawn(probabilities, n, generator):
    return generator.multinomial(1, [*probabilities, 1 - sum(probabilities)], size=n)[:, :3]


def more(pairs):
    return pairs.more()


def more_than(pairs):
    return pairs.more_than(LEAD)


# On the edge of what is faithful: gradients as good as the search; LEAD times as good as random points.
FAITHFUL = [
    (more, (0.0, 0.3, 0.3)),
    (more, (0.4, 0.05, 0.05)),
    (more, (0.1, 0.01, 0.01)),
    (more_than, (0.3, 0.0, 0.15)),
    (more_than, (0.0, 0.2, 0.3)),
    (more_than, (0.1, 0.05, 0.125)),
    (more_than, (0.04, 0.0, 0.02)),
]


@pytest.mark.parametrize(("p_value", "probabilities"), FAITHFUL)
def test_a_faithful_network_is_failed_at_most_at_the_level(p_value, probabilities):
    generator = np.random.default_rng(0)
    trials, n = 1500, 256
    failed = sum(decided(p_value, drawn(probabilities, n, generator), looks(n)) for _ in range(trials))
    assert failed <= binom.ppf(1 - 1e-4, trials, LEVEL)


@given(st.lists(st.integers(0, 6), min_size=3, max_size=3), st.integers(3, 24))
def test_one_look_has_its_level_exactly(weights, n):
    """The sum over all outcomes, on the edge: discordant pairs a fair coin; gradients LEAD times as good as points."""
    both, black = (weight / 30 for weight in weights[:2])
    for p_value, white in ((more, black), (more_than, (LEAD - 1) * both + LEAD * black)):
        total = 0.0
        rest = 1 - both - black - white
        for i in range(n + 1):
            for j in range(n + 1 - i):
                for k in range(n + 1 - i - j):
                    if p_value(Pairs(i, j, k)) < LEVEL:
                        total += _multinomial((i, j, k, n - i - j - k), (both, black, white, rest))
        assert total <= LEVEL + 1e-12


def _multinomial(counts, probabilities):
    left, value = sum(counts), 1.0
    for count, p in zip(counts, probabilities, strict=True):
        value *= float(np.prod([(left - i) / (count - i) for i in range(count)])) * p**count
        left -= count
    return value


@pytest.mark.parametrize(
    ("p_value", "probabilities"), [(more, (0.1, 0.2, 0.02)), (more_than, (0.5, 0.0, 0.0)), (more_than, (0.05, 0.3, 0.05))]
)
def test_a_masked_network_fails_before_the_samples_end(p_value, probabilities):
    generator = np.random.default_rng(1)
    assert all(decided(p_value, drawn(probabilities, 512, generator), looks(512)) for _ in range(100))


def batch_of(start, stop):
    return Batch(None, None, tuple(range(start, stop)))  # type: ignore[arg-type]


def growing(search, gradients, n, more=batch_of):
    """Grow from the first slice; ``search`` and ``gradients`` say of an index whether it is broken."""
    asked = []

    def measure(batch):
        asked.extend(batch.indices)
        return numbers(batch.indices)

    def numbers(indices):
        broken, white = (tuple(filter(breaks, indices)) for breaks in (search, gradients))
        return Controls(noise=(), search=broken, right=tuple(indices), gradients=white)

    found = Growth(more, n).grown(numbers(range(min(SLICE, n))), measure, controls.joined, controls.undecided)
    assert asked == list(range(SLICE, len(found.right))), "each sample once, in order"
    return found


def test_the_probe_grows_only_until_it_can_decide():
    assert len(growing(lambda i: i % 4 == 0, lambda i: i % 2 == 0, 1000).right) == SLICE, "gradients are ahead"
    assert len(growing(lambda _: True, lambda _: False, 1000).right) == SLICE, "32 to 0 is enough"
    some = growing(lambda i: i % 8 == 0, lambda _: False, 1000)
    assert SLICE < len(some.right) < 1000 and some.looks == len(looks(1000))
    assert len(growing(lambda i: i == 0, lambda _: False, 2000).right) == 16 * SLICE, "then the lead is too small in points"


def test_an_unlucky_first_slice_is_put_right_by_more_samples():
    found = growing(lambda i: i < 3, lambda i: i >= SLICE, 1000)
    assert len(found.right) == 2 * SLICE and len(found.gradients) > len(found.search)


def test_without_more_samples_nothing_grows():
    assert growing(lambda i: i == 0, lambda _: False, 1000, more=None).looks == 1
    assert growing(lambda i: i == 0, lambda _: False, 15).looks == 1
    assert POINTS_DIFFERENCE < 100 / 15


def test_further_samples_are_measured_as_the_first_slice_is():
    prepared = ready()
    batch = probed_batch(prepared)
    first = probe("a" * 64, prepared.target, prepared.settings, batch, 0).controls
    again = Further(Subjects(prepared.target, prepared.settings, 0), Growth(None, 0)).more_controls(batch)
    assert first is not None and first.gradients and first.looks == 1
    for name in ("noise", "search", "right", "gradients"):
        assert sorted(getattr(again, name)) == sorted(getattr(first, name))


def test_a_probe_of_an_older_version_is_read_until_there_is_a_newer_one_of_the_same(tmp_path):
    store = Store(tmp_path)
    keys = ["a" * 64, "b" * 64, "c" * 64]
    for key, version, seed in zip(keys, (1, VERSION, 1), (0, 0, 1), strict=True):
        store.write_probe(replace(probe_of(key), version=version, seed=seed))
    records = cast(list[RunRecord], [SimpleNamespace(trust=key) for key in keys])
    assert {1, VERSION} <= READABLE
    assert [found.key for found in _probes(records, store)[0]] == keys[1:]
    assert [found.key for found in _probes(records[::2], store)[0]] == keys[::2], "the older one is all there is"


@pytest.mark.parametrize("part", ["path", "radii", "controls"])
def test_a_measurement_on_more_samples_than_the_first_slice_is_read_back(part, tmp_path):
    given_net = evaluated.prepared(n=32)
    _, store = evaluated.evaluate(tmp_path, ["single"], given_net)
    assert ensure_probe(given_net, 0, store) is None
    found = store.read_probe(probe_key(given_net, 0))
    more = (*found.right, 900, 901)
    names = {"path": "on_path", "radii": None, "controls": "noise"}
    numbers = replace(getattr(found, part), right=more)
    if part == "radii":
        numbers = replace(numbers, unbounded=replace(numbers.unbounded, broken=(901,)))
    else:
        numbers = replace(numbers, **{names[part]: (900,)})
    if part == "controls":
        numbers = replace(numbers, gradients=numbers.gradients or ())
    store.write_probe(replace(found, **{part: numbers}))
    assert getattr(store.read_probe(found.key), part).right == more
    with pytest.raises(ValueError, match="that it cannot be of"):
        replace(found, **{part: replace(numbers, right=found.right)})

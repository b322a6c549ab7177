"""Counter-based random numbers: against published vectors, against their distributions, and whatever the batch is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from exitbench.attacks import draws
from exitbench.attacks.draws import normal, uniform
from exitbench.attacks.noise import Noise
from exitbench.attacks.philox import MULTIPLIERS, WEYL, philox

KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Counter, key and answer, from the known answers of Random123 1.14 (``philox4x32 10`` in ``tests/kat_vectors``)."""

N = 40_000
LEVEL = 1e-3
"""Of each test of a distribution; draws are fixed, so a test that passes once always does."""


def words(text):
    return [int(word, 16) for word in text.split()]


def by_hand(counter, key):
    """Philox4x32-10 in Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high, low = zip(*(divmod(m * word, 2**32) for m, word in zip(MULTIPLIERS, c[::2], strict=True)), strict=True)
        c = [high[1] ^ c[1] ^ k[0], low[1], high[0] ^ c[3] ^ k[1], low[0]]
        k = [(word + step) % 2**32 for word, step in zip(k, WEYL, strict=True)]
    return c


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    counter, key = words(counter), words(key)
    assert by_hand(counter, key) == words(answer)
    found = philox(tuple(torch.tensor([word]) for word in counter), tuple(key))
    assert found.flatten().tolist() == words(answer)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4), st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
def test_philox_is_what_python_computes(counter, key):
    found = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert found.flatten().tolist() == by_hand(counter, key)


def test_numbers_are_at_their_places_of_the_generator():
    """The seed and the stream are the key; block, restart and sample the counter."""
    seed, restart, sample = 3, 2, 2**33 + 5
    key = draws.hashed(seed, "there")
    block = by_hand((1, restart, 5, 2), (key % 2**32, key >> 32))
    (row,) = uniform(seed, "there", torch.tensor([sample]), (7,), restart=restart).tolist()
    assert row[4:] == [word // 256 / 2**24 for word in block[:3]]


@pytest.mark.parametrize(("draw", "distribution"), [(uniform, stats.uniform), (normal, stats.norm)])
@pytest.mark.parametrize("along", ["positions", "samples", "restarts"])
def test_numbers_are_distributed_as_they_should_be(draw, distribution, along):
    """In every direction: moments within their sampling error at ``LEVEL``, Kolmogorov-Smirnov, and no serial correlation."""
    if along == "restarts":
        found = torch.cat([draw(0, "test", torch.arange(200), (10,), restart=restart).flatten() for restart in range(N // 2000)])
    else:
        found = draw(0, "test", torch.arange(1 if along == "positions" else N), (N if along == "positions" else 1,)).flatten()
    numbers = found.double().numpy()
    assert len(numbers) == N and (draw is normal or (numbers.min() >= 0 and numbers.max() < 1))
    mean, variance, kurtosis = (float(value) for value in distribution.stats(moments="mvk"))
    far = stats.norm.isf(LEVEL / 2)
    assert abs(numbers.mean() - mean) < far * (variance / N) ** 0.5
    assert abs(numbers.var() - variance) < far * variance * ((kurtosis + 2) / N) ** 0.5
    assert stats.kstest(numbers, distribution.cdf).pvalue > LEVEL
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < far / N**0.5


def test_normal_numbers_are_quantiles_to_seven_digits_up_to_the_ends():
    ends = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
    some = torch.cat((ends, torch.arange(0, 2**32, 2**20 + 7)))
    exact = stats.norm.ppf((some.double().numpy() + 0.5) / 2**32)
    np.testing.assert_allclose(draws._quantile(some).numpy(), exact, rtol=3e-7)


class Prescribed(TorchDispatchMode):
    """A mode that records the operations on numbers that are not whole."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(isinstance(value, torch.Tensor) and value.is_floating_point() for value in args):
            self.seen.add(func.overloadpacket.__name__.rstrip("_"))
        assert "alpha" not in (kwargs or {}), "two operations in one may be rounded once or twice"
        return func(*args, **(kwargs or {}))


def test_normal_numbers_take_only_operations_that_are_rounded_alike_everywhere():
    exact = {"add", "sub", "rsub", "mul", "div", "sqrt", "abs", "neg", "frexp", "where", "lt", "ge", "le", "_to_copy"}
    moving = {"permute", "reshape", "view", "clone", "_unsafe_view", "slice", "cat", "alias", "expand"}
    with Prescribed() as mode:
        normal(0, "test", torch.arange(3), (5,))
    assert "div" in mode.seen and mode.seen <= exact | moving


@given(st.permutations(range(9)), st.integers(1, 9), st.sampled_from([2**17, 8]))
def test_a_number_does_not_depend_on_the_batch(order, size, at_once):
    noise = Noise(4, tuple(2**62 + 3 * sample for sample in range(9)))
    like = torch.empty(9, 2, 3)
    usual = draws._AT_ONCE["cpu"]
    for draw in (Noise.uniform, Noise.normal):
        whole = draw(noise, like, 3)
        draws._AT_ONCE["cpu"] = at_once
        try:
            parts = [draw(noise.of(rows), like[rows], 3) for rows in torch.tensor(order).split(size)]
        finally:
            draws._AT_ONCE["cpu"] = usual
        assert torch.equal(torch.cat(parts), whole[torch.tensor(order)])


def test_every_device_kind_draws_the_same_bits():
    """Those that are here; others run the same operations (see above), at least on a device without storage."""
    kinds = ["meta", *(kind for kind in ("cuda", "mps", "xpu") if getattr(torch, kind).is_available())]
    samples = torch.arange(5) + 2**40
    for draw in (uniform, normal):
        known = draw(1, "test", samples, (3, 5), restart=7)
        for kind in kinds:
            found = draw(1, "test", samples, (3, 5), torch.device(kind), restart=7)
            assert found.device.type == kind and found.shape == known.shape and found.dtype == known.dtype
            assert kind == "meta" or torch.equal(found.cpu(), known)

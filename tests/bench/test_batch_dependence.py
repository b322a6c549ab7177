"""Dependence on the batch: whatever an image's logits take from the images beside it is flagged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exitbench.attacks.noise import Noise
from exitbench.checks import outputs
from exitbench.checks.subject import Subject
from exitbench.models.foreign import ForeignNet
from exitbench.models.policies import FixedExit
from tests.bench.evaluated import SETTINGS
from tests.toys import batch

SHAPE = (1, 4, 4)


class Dependent(nn.Module):
    """Two exits; ``rule`` says from the batch which images get the logits of the second at both."""

    def __init__(self, rule):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(16, 5), nn.Linear(16, 5)
        self.rule = rule

    def forward(self, x):
        x = x.flatten(1)
        first, second = 4 * self.first(x), 4 * self.second(x)
        late = self.rule(first.softmax(-1).amax(-1))
        return [torch.where(late[:, None], second, first), second]


BY_BATCH = {
    "the most confident image is sure": lambda sure, at: (sure.amax() > at).expand(len(sure)),
    "the least confident image is sure": lambda sure, at: (sure.amin() > at).expand(len(sure)),
    "the mean image is sure": lambda sure, at: (sure.mean() > at).expand(len(sure)),
    "the first image is sure": lambda sure, at: (sure[0] > at).expand(len(sure)),
    "the last image is sure": lambda sure, at: (sure[-1] > at).expand(len(sure)),
    "the neighbour is sure": lambda sure, at: sure.roll(1) > at,
    "most images are sure": lambda sure, at: ((sure > at).sum() > len(sure) / 2).expand(len(sure)),
    "the place in the batch": lambda sure, at: torch.arange(len(sure)) % 2 == 1,
    "the batch is of one": lambda sure, at: torch.tensor(len(sure) == 1).expand(len(sure)),
    "the batch is of two": lambda sure, at: torch.tensor(len(sure) == 2).expand(len(sure)),
    "the batch is odd": lambda sure, at: torch.tensor(len(sure) % 2 == 1).expand(len(sure)),
    "the rank in the batch": lambda sure, at: sure >= sure.quantile(0.9),
}


def measured(rule, n=32, seed=1):
    x, y, _ = batch(n, SHAPE, 5, seed)
    net = ForeignNet(Dependent(rule), SHAPE)
    return outputs.measure(Subject(net, FixedExit(1), x, y, Noise(0, tuple(range(n))), SETTINGS))


def confidences(n, seed):
    x, _, _ = batch(n, SHAPE, 5, seed)
    with torch.no_grad():
        return (4 * Dependent(None).first(x.flatten(1))).softmax(-1).amax(-1)


@pytest.mark.parametrize("rule", sorted(BY_BATCH))
def test_a_forward_that_asks_the_batch_is_flagged(rule):
    at = float(confidences(32, 1).quantile(0.5))
    found = outputs.flags(measured(lambda sure: BY_BATCH[rule](sure, at)))
    assert [flag.name for flag in found if flag.level == "failure"] == ["randomised outputs"]


@given(rule=st.sampled_from(sorted(BY_BATCH)), share=st.floats(0.02, 0.98), n=st.integers(4, 32), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_wherever_the_threshold_lies(rule, share, n, seed):
    """The threshold lies between the confidences of the clean images, so that some batch of them falls on either side."""
    sure = confidences(n, seed).sort().values
    place = min(int(share * (n - 1)), n - 2)
    at = float((sure[place] + sure[place + 1]) / 2)
    numbers = measured(lambda sure: BY_BATCH[rule](sure, at), n, seed)
    assert numbers.batched > outputs.ROUNDING


def test_a_threshold_that_only_other_images_cross_is_found_too():
    """Attacks fill batches with images that are surer, or less sure, than any clean one."""
    sure = confidences(32, 1)
    above, below = float(sure.amax() + 0.01), float(sure.amin() - 0.01)
    assert measured(lambda sure: BY_BATCH["the most confident image is sure"](sure, above)).batched > outputs.ROUNDING
    assert measured(lambda sure: BY_BATCH["the least confident image is sure"](sure, below)).batched > outputs.ROUNDING


@given(n=st.integers(1, 32), seed=st.integers(0, 99), at=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_forward_that_asks_each_image_alone_is_not_flagged(n, seed, at):
    numbers = measured(lambda sure: sure > at, n, seed)
    # A confidence on the threshold, to rounding, may fall on either side.
    if (confidences(n, seed) - at).abs().amin() > 1e-5:
        assert numbers.batched < outputs.ROUNDING and numbers.repeated == 0


@pytest.mark.parametrize(("version", "read"), [(1, True), (2, True), (3, True), (4, True), (5, True), (6, False)])
def test_checks_of_an_earlier_version_hold_for_what_they_measured(version, read, tmp_path):
    from msgspec import structs

    from exitbench.checks.probe import ensure_probe
    from exitbench.runner.probe_key import probe_key
    from tests.bench import evaluated

    ready = evaluated.prepared(n=32)
    _, store = evaluated.evaluate(tmp_path, ["single"], ready)
    assert ensure_probe(ready, 0, store) is None
    numbers = store.read_probe(probe_key(ready, 0))
    store.write_probe(structs.replace(numbers, version=version))
    assert evaluated.only_evaluation(store).checked == read

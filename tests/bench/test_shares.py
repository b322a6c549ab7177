"""Checks that compare a share of samples with chance: their level, their power, and how the samples grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from scipy.stats import binom

from exitbench.checks import gradients, path, radii
from exitbench.checks.further import Further, Subjects
from exitbench.checks.gradients import SURE, ZERO
from exitbench.checks.growth import Growth
from exitbench.checks.leads import LEVEL, looks
from exitbench.checks.path import UNFINISHED
from exitbench.checks.probe import probe
from exitbench.checks.radii import FALL_AT_TWICE, FALL_AT_USUAL, SURVIVORS
from exitbench.checks.share import TOO_FEW
from exitbench.models.user_folders import data_folder
from exitbench.runner.prepare import Request, prepare
from exitbench.runner.probe_key import probed_batch
from exitbench.store.cell import SLICE
from exitbench.store.trust_result import AscentPath, AtRadius, Gradients, Radii
from tests.bench import trained as toys
from tests.bench.trained import planted, ready

TESTS = {"zero gradients": ZERO, "saturated gates": SURE, "unfinished": UNFINISHED, "survivors": SURVIVORS}


@given(st.sampled_from(sorted(TESTS)), st.integers(1, 400), st.integers(1, 8))
def test_one_look_has_its_level(name, samples, looked):
    """The exact probability that a network on the edge of what is faithful is told "yes"."""
    test = TESTS[name]
    told = [k for k in range(samples + 1) if test.verdict(k, samples, looked) == "yes"]
    assert sum(binom.pmf(k, samples, test.chance) for k in told) <= LEVEL / looked + 1e-12


@pytest.mark.parametrize("name", TESTS)
def test_all_looks_together_have_the_level(name):
    test, generator = TESTS[name], np.random.default_rng(0)
    sizes, trials = looks(256), 2000
    sums = np.cumsum(generator.random((trials, 256)) < test.chance, axis=1)
    failed = sum(any(test.verdict(int(row[n - 1]), n, len(sizes)) == "yes" for n in sizes) for row in sums)
    assert failed <= binom.ppf(1 - 1e-4, trials, LEVEL)


@given(st.sampled_from(sorted(TESTS)), st.integers(1, 200), st.integers(0, 200), st.integers(1, 8))
def test_more_samples_that_show_it_never_speak_against_it(name, samples, found, looked):
    order = ("no", "undecided", "yes")
    verdicts = [order.index(TESTS[name].verdict(min(k, samples), samples, looked)) for k in (found, found + 1)]
    assert verdicts == sorted(verdicts)


@pytest.mark.parametrize(
    ("name", "found"), [("zero gradients", 4), ("saturated gates", 17), ("unfinished", 17), ("survivors", 4)]
)
def test_what_the_share_of_one_slice_flagged_is_flagged(name, found):
    """Of 32 samples, at the default n of 64: as strict as the fixed counts were, but for one or two samples."""
    test = TESTS[name]
    assert test.verdict(found, SLICE, len(looks(64))) == "yes"
    assert test.verdict(1, SLICE, len(looks(64))) != "yes" and test.verdict(0, SLICE) == "no"


def counted(zero, samples, looked=2, gates=0):
    """Gradients of one exit, and of a second with a gate, on so many samples."""
    share = zero / samples
    return Gradients(
        zero=(share, 0.0),
        zero_margin=(0.0, 0.0),
        saturated=(gates / samples,),
        reachable=(0, 1),
        right=(samples, samples),
        gated=samples,
        looks=looked,
    )


def level_of(found, name):
    return {flag.name: flag.level for flag in found}.get(name)


def test_zero_gradients_and_saturated_gates_are_undecided_on_a_few_samples():
    for zero, level in ((0, None), (1, None), (2, "warning"), (3, "failure"), (32, "failure")):
        assert level_of(gradients.flags(counted(zero, 32)), "zero gradients") == level
    for gates, level in ((8, None), (15, None), (16, "warning"), (17, "warning")):
        assert level_of(gradients.flags(counted(0, 32, gates=gates)), "saturated gates") == level
    (flag,) = gradients.flags(counted(1, 1))
    assert flag.level == "warning" and TOO_FEW in flag.message
    (flag,) = gradients.flags(counted(0, 2, gates=1))
    assert flag.level == "info" and TOO_FEW in flag.message


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5))
def test_joined_shares_are_those_of_all_samples(parts):
    whole = None
    for samples, zero, gates in parts:
        part = counted(min(zero, samples), samples, gates=min(gates, samples))
        whole = part if whole is None else gradients.joined(whole, part)
    total = sum(samples for samples, _, _ in parts)
    assert whole.right == (total, total) and whole.gated == total
    assert whole.zero[0] == pytest.approx(sum(min(zero, n) for n, zero, _ in parts) / total)
    assert whole.saturated[0] == pytest.approx(sum(min(gates, n) for n, _, gates in parts) / total)


def curve(*broken, samples, whole=None, eps=0.2, looked=1):
    kept = [AtRadius(eps=eps * factor, broken=tuple(each)) for factor, each in zip((0.5, 1, 2), broken, strict=True)]
    unbounded = AtRadius(eps=1.0, broken=tuple(range(samples) if whole is None else whole))
    return Radii(radii=tuple(kept), unbounded=unbounded, right=tuple(range(samples)), looks=looked)


class TestRadii:
    def flags(self, numbers, usual_eps=0.2):
        return {flag.name: flag.level for flag in radii.flags(numbers, 0, usual_eps) if flag.level != "info"}

    def test_a_single_sample_that_is_not_broken_is_no_failure(self):
        flat = "accuracy does not fall with eps"
        for samples, level in ((1, "warning"), (20, "warning"), (21, "failure"), (32, "failure")):
            assert self.flags(curve([], [], [], samples=samples)) == {flat: level}
            assert ((1 - FALL_AT_TWICE) ** samples < LEVEL) == (level == "failure")

    def test_at_the_usual_radius_the_best_defences_lose_little(self):
        """A network that loses 3 % there leaves one slice unbroken in one case of three; it needs 152 samples to be failed."""
        flat = "accuracy does not fall with eps"
        for samples, level in ((32, "warning"), (151, "warning"), (152, "failure")):
            assert self.flags(curve([], [], [], samples=samples, eps=0.1)) == {flat: level}
        assert (1 - FALL_AT_USUAL) ** 32 > 0.3

    def test_a_survivor_of_the_unbounded_attack_is_no_failure(self):
        name = "unbounded attack fails"
        for left, level in ((0, None), (1, "warning"), (3, "failure"), (4, "failure")):
            found = self.flags(curve(range(3), range(10), range(32), samples=32, whole=range(32 - left)))
            assert found.get(name) == level, left
        assert self.flags(curve(range(3), range(10), range(200), samples=200, whole=range(198))) == {}

    def test_a_curve_that_rises_by_five_samples_is_undecided(self):
        for lost, level in ((4, None), (5, "warning"), (8, "warning"), (9, "failure")):
            found = self.flags(curve(range(lost), [], range(32), samples=32))
            assert found.get("accuracy rises with eps") == level

    @given(st.integers(1, 64), st.integers(0, 64), st.integers(0, 64), st.integers(0, 64))
    def test_it_grows_exactly_while_a_warning_stands(self, samples, one, two, whole):
        broken = [range(min(count, samples)) for count in (one, two, samples, whole)]
        numbers = curve(*broken[:3], samples=samples, whole=broken[3])
        levels = set(self.flags(numbers).values())
        assert radii.undecided(numbers, 0.2) == ("warning" in levels and "failure" not in levels)


def rising(count, right, broken=0, looked=2):
    ids = tuple(range(right))
    numbers = {"keep": "best", "steps": 20, "on_path": ids[right - broken :], "returned": (), "late": (), "switches": 0.0}
    return AscentPath(**numbers, rising=ids[:count], right=ids, looks=looked)


def test_three_samples_that_still_rise_are_too_few_to_tell():
    for count, right, level in ((3, 3, "info"), (3, 6, "info"), (16, 32, "warning"), (6, 32, "info")):
        (flag,) = (f for f in path.flags(rising(count, right), (), set(range(right))) if f.name == "unfinished optimisation")
        assert flag.level == level, (count, right)
    assert path.undecided(rising(3, 3)) and path.undecided(rising(3, 6))
    assert not path.undecided(rising(16, 32)) and not path.undecided(rising(6, 32)) and not path.undecided(rising(0, 0))


class Sometimes(toys.Scaled):
    """Gradients that vanish on images with a bright corner pixel, a few in a hundred."""

    def forward(self, x):
        dark = (x[:, :, 0, 2] < 0.82)[:, :, None, None]
        return (x.detach() * ~dark) + x * dark


def probed(net=None, n=256, settings=toys.SETTINGS, seed=0):
    prepared = ready(net, settings=settings, n=n)
    growth = Growth(prepared.split.batch, prepared.n)
    return probe("a" * 64, prepared.target, prepared.settings, probed_batch(prepared), seed, growth, 0.2)


def test_a_healthy_network_is_probed_on_one_slice():
    found = probed()
    assert (found.gradients.gated, len(found.path.right), len(found.radii.right)) == (32, len(found.right), len(found.right))
    assert found.gradients.looks == found.path.looks == found.radii.looks == len(looks(256))


def test_an_undecided_share_grows_and_is_then_decided():
    found = probed(planted(stage=Sometimes(1)))
    assert found.gradients.gated > SLICE
    assert not gradients.undecided(found.gradients)


def test_further_samples_are_measured_as_the_first_slice_is():
    prepared = ready(n=64)
    subjects = Subjects(prepared.target, prepared.settings, 0)
    further = Further(subjects, Growth(prepared.split.batch, 64))
    first = probed(n=32)
    other = probe("a" * 64, prepared.target, prepared.settings, prepared.split.batch(32, 64), 0)
    with pytest.MonkeyPatch.context() as patch:
        for module in (gradients, path, radii):
            patch.setattr(module, "undecided", lambda *_: True)
        of_gradients, of_path = further.gradients(first.gradients), further.path(first.path)
        of_radii = further.radii(first.radii, 0.2)
    assert of_gradients == structs.replace(gradients.joined(first.gradients, other.gradients), looks=2)
    assert of_gradients.gated == 64
    assert of_path == structs.replace(path.joined(first.path, other.path), looks=2)
    assert of_radii == structs.replace(radii.joined(first.radii, other.radii), looks=2)
    assert set(of_radii.radii[1].broken) == {*first.radii.radii[1].broken, *other.radii.radii[1].broken}


@pytest.mark.parametrize("seed", range(2))
def test_a_healthy_network_has_no_flag_whatever_the_seed_and_the_samples(seed):
    for n in (1, 4, 32):
        found = probed(n=n, seed=seed)
        told = [*gradients.flags(found.gradients), *radii.flags(found.radii, 0, 0.2)]
        assert {flag.level for flag in told if flag.name != "accuracy does not fall with eps"} <= {"info"}
        assert "failure" not in {flag.level for flag in told}


SHIPPED = [("digits", "average", seed) for seed in range(2)] + [("mnist", "max_average_fast", 0)]


@pytest.mark.parametrize(("dataset", "training", "seed"), SHIPPED)
def test_shipped_networks_at_default_settings_are_not_failed(dataset, training, seed):
    data = data_folder()
    if dataset == "mnist" and not (data / "mnist").exists():
        pytest.skip("MNIST is not at hand")
    prepared = prepare(Request(model="rdi_smallcnn", dataset=dataset, training=training, data=data, precision="fp32"))
    growth, eps = Growth(prepared.split.batch, prepared.n), prepared.settings.region.eps
    found = probe("a" * 64, prepared.target, prepared.settings, probed_batch(prepared), seed, growth, eps)
    told = [*gradients.flags(found.gradients), *path.flags(found.path, (), None), *radii.flags(found.radii, 0, eps)]
    assert "failure" not in {flag.level for flag in told}, told
    assert {flag.name for flag in told if flag.level == "warning"} <= {"unfinished optimisation"}, told

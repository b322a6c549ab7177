"""Inputs in another unit, and networks that know nothing, are said before any work, with what was probably meant."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom

from exitbench.errors import UserError
from exitbench.models.policies import ConfidencePolicy, EntropyPolicy
from exitbench.models.rules.ensemble import EnsemblePolicy, VotePolicy
from exitbench.models.rules.gate import GatePolicy
from exitbench.models.rules.margin import MarginPolicy
from exitbench.models.rules.temperature import Tempered
from exitbench.runner.meant import LEVEL, chance_note, check_length, check_thresholds
from exitbench.stats.proportions import at_least
from tests.bench.test_own_model import TINY

RUN = ["run", "--dataset", "digits", "--n", "32", "--steps", "2", "--attack", "single:1"]

NORMALISED = """
import torch
from torch import nn
from exitbench.models.registry import model_card
from exitbench.models.weights import find_weights, load_weights

class Before(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.net = model_card("rdi_smallcnn").build()
        load_weights(self.net, find_weights("rdi_smallcnn", "digits")[1])
        self.mean, self.std = mean, std
        self.input_shape = (1, 28, 28)

    def forward(self, x):
        return list(self.net((x - self.mean) / self.std))

def right():
    return Before(0.0, 1.0)

def raw():
    return Before(-1e3, 1e-3)
"""


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1e-3, 1 - 1e-3))
def test_the_binomial_tail_is_scipys(counts, p):  # as far as scipy keeps its digits, which it loses below about 1e-250
    successes, n = counts
    assert at_least(successes, n, p) == pytest.approx(binom.sf(successes - 1, n, p), rel=1e-9, abs=1e-200)


def test_the_binomial_tail_of_a_certainty():
    assert (at_least(3, 3, 1.0), at_least(0, 3, 0.0), at_least(1, 3, 0.0)) == (1.0, 1.0, 0.0)


@given(st.integers(2, 20), st.integers(100, 400), st.randoms(use_true_random=False))
def test_a_guess_is_told_and_a_network_that_knows_something_is_not(classes, n, random):
    labels = [random.randrange(classes) for _ in range(n)]
    most = max(labels.count(c) for c in range(classes))
    assume(most < n)
    assert chance_note(labels.count(0), n, most), "always class 0"
    assert chance_note(0, n, most)
    assert chance_note(n - (n - most) // 4, n, most) is None


@pytest.mark.parametrize(("right", "n", "is_said"), [(1, 1, False), (0, 1, True), (2, 2, False), (3, 3, False), (1, 8, True)])
def test_few_images(right, n, is_said):
    assert (chance_note(right, n, 1) is not None) == is_said


def test_the_level_is_the_stated_one():
    """Of 100 images in equal classes of two, 59 right are significant at 5 %, 58 are not."""
    assert at_least(59, 100, 0.5) < LEVEL < at_least(58, 100, 0.5)
    assert chance_note(58, 100, 50) is not None and chance_note(59, 100, 50) is None


def test_normalisation_that_is_missing_is_said_before_any_work_and_in_every_report(bench, tmp_path):
    (tmp_path / "net.py").write_text(NORMALISED)
    for factory, is_said in (("right", False), ("raw", True)):
        code, out, err = bench(*RUN, "--model", f"net.py:{factory}", "--results", factory)
        assert code == 0, err
        words = "usually the normalisation is missing"
        found = [words in " ".join(text.split()) for text in (err.partition("plan:")[0], out)]
        (path,) = (tmp_path / factory / "leaderboards").glob("*.csv")
        found += [words in row["note"] for row in csv.DictReader(path.open(newline=""))]
        found.append(words in (tmp_path / factory / "index.html").read_text())
        assert found == [is_said] * len(found)


LENGTHS = [("Linf", 8, "8/255"), ("Linf", 1.001, "1.001/255"), ("L2", 128, "128/255"), ("L2", 8.01, "8.01/255")]


@pytest.mark.parametrize(("norm", "length", "meant"), LENGTHS)
def test_a_radius_that_reaches_every_image_is_refused(norm, length, meant):
    with pytest.raises(UserError, match=rf"pixels are in \[0, 1\].* in {norm}; was {meant} meant\?"):
        check_length("eps", length, norm, 64)


def test_radii_up_to_the_diagonal_are_allowed():
    check_length("eps", 1.0, "Linf", 64)
    check_length("eps", 8.0, "L2", 64)


MEANT = [((90, 90), "0.9,0.9"), ((0.5, 90), "0.5,0.9"), ((math.inf, 95), "inf,0.95")]


@pytest.mark.parametrize(("thresholds", "meant"), MEANT)
def test_confidences_in_per_cent_are_refused(thresholds, meant):
    for name, kind in (
        ("confidence", ConfidencePolicy),
        ("vote", VotePolicy),
        ("ensemble", EnsemblePolicy),
        ("margin", MarginPolicy),
    ):
        for rule in (kind(thresholds), Tempered(kind(thresholds), (1.0, 2.0, 1.0))):
            with pytest.raises(UserError, match=rf"probabilities are in \[0, 1\].*was {name}:{meant} meant\?"):
                check_thresholds(rule)
    check_thresholds(EntropyPolicy(thresholds))
    check_thresholds(GatePolicy(thresholds))
    check_thresholds(VotePolicy((1 + 1e-6, 0.9), "set on held-out images"))


@given(st.lists(st.floats(-math.inf, 1) | st.just(math.inf), max_size=4))
def test_confidences_that_can_be_reached_and_infinity_are_allowed(thresholds):
    check_thresholds(ConfidencePolicy(tuple(thresholds)))


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--eps", "8"], "eps = 8: pixels are in [0, 1], and no two images are further apart than 1 in Linf; was 8/255 meant?"),
        (["--step-size", "2"], "was 2/255 meant?"),
        (["--norm", "L2", "--eps", "128"], "was 128/255 meant?"),
        (["--policy", "confidence:90"], "was confidence:0.9 meant?"),
    ],
)
def test_the_command_says_what_was_meant_and_does_nothing(arguments, meant, bench, tmp_path):
    (tmp_path / "tiny.py").write_text(TINY)
    code, _, err = bench(*RUN, "--model", "tiny.py:make", *arguments)
    assert code == 2 and meant in " ".join(err.split())
    assert not list(tmp_path.glob("results/store/*/*"))


def test_from_python_as_well(tmp_path):
    import exitbench

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    with pytest.raises(UserError, match="was 8/255 meant"):
        exitbench.evaluate(net, dataset="digits", eps=8, results=tmp_path)

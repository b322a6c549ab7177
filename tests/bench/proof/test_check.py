"""True claims hold, each kind of false one is found, and by what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitbench.attacks.regions import ThreatModel
from exitbench.models.policies import EntropyPolicy
from exitbench.models.policy_text import policy_text
from exitbench.models.uncertainty import entropy
from exitbench.runner.certify import TOLERANCE as CERTIFIED
from exitbench.verify.ball import SLACK, distance, outside
from exitbench.verify.check import TOLERANCE, deployed
from exitbench.verify.export_file import from_bytes, to_bytes
from exitbench.verify.scorer import Scorer
from tests.bench.evaluated import NET, only_evaluation
from tests.bench.proof.toy_claims import texts, toy_claims, toy_store, verified
from tests.bench.records import changed as another


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    toy_store(folder)
    return folder


@pytest.fixture(scope="module")
def claims(results):
    return toy_claims(results)


def changed(claims, name, value, at):
    """The claims with one entry of one array changed."""
    array = getattr(claims, name).copy()
    array[at] = value
    return replace(claims, **{name: array})


def a_break(claims):
    """A counterexample of the deployed rule, and one that only breaks an exit not taken."""
    return int(np.flatnonzero(claims.broken)[0]), int(np.flatnonzero(~claims.broken)[0])


def test_what_the_harness_stored_holds_and_proves_the_worst_case(results, claims):
    from exitbench.store.store import Store

    evaluation = only_evaluation(Store(results / "store"))
    found = verified(claims)
    assert found.mismatches == () and not found.borderline.any() and not found.clean_borderline.any()
    assert found.worst == int(evaluation.worst.sum()) and found.clean == int(evaluation.clean.correct.sum())
    assert 0 < found.worst < found.clean < 70
    assert claims.n_attacks == len(evaluation.attacks)
    assert claims.broken.any() and not claims.broken.all()  # exits not taken have their images, too
    assert set(np.unique(claims.exits)) == {0, 1, 2}


def test_a_pixel_outside_the_ball_is_found(claims):
    m, _ = a_break(claims)
    clean = claims.clean_images[claims.row[m], 0, 1, 2]
    moved = clean + 0.151 if clean < 0.5 else clean - 0.151
    (first, *_) = texts(changed(claims, "images", moved, (m, 0, 1, 2)))
    assert claims.where(m) in first and "claimed within Linf 0.15 of the clean image, found at 0.151" in first


@pytest.mark.parametrize("pixel", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_is_found(claims, pixel):
    m, _ = a_break(claims)
    (first, *_) = texts(changed(claims, "images", pixel, (m, 0, 0, 0)))
    assert claims.where(m) in first and "1 pixels are NaN or infinite" in first


def test_a_pixel_outside_the_box_is_found(claims):
    m, _ = a_break(claims)
    wide = replace(claims, subject=another(claims.subject, eps=5.0))
    (first, *_) = texts(changed(wide, "images", -0.1, (m, 0, 0, 0)))
    assert claims.where(m) in first and "leave the box" in first


def test_a_flipped_label_is_found(claims):
    row = claims.row[a_break(claims)[0]]
    found = texts(changed(claims, "labels", (claims.labels[row] + 1) % 5, row))
    assert any(text.startswith(f"sample {row}: claimed input hash") for text in found)


def test_a_changed_clean_image_is_found(claims):
    row = claims.row[a_break(claims)[0]]
    value = claims.clean_images[row, 0, 0, 0]
    found = texts(changed(claims, "clean_images", value + np.float32(1e-6), (row, 0, 0, 0)))
    assert any(text.startswith(f"sample {row}: claimed input hash") for text in found)


def test_other_samples_under_a_matching_hash_are_found_by_the_data_digest(claims):
    assert any(text.startswith("data: claimed digest") for text in texts(changed(claims, "inputs", claims.inputs[1], 0)))


def test_tampered_logits_are_found_at_every_exit(claims):
    for m in a_break(claims):
        for k in range(3):
            found = texts(changed(claims, "logits", claims.logits[k, m, 1] + 0.01, (k, m, 1)))
            assert any(claims.where(m) in text and "off by" in text for text in found)


def test_logits_that_are_no_numbers_are_found(claims):
    m, _ = a_break(claims)
    assert any("off by inf" in text for text in texts(changed(claims, "logits", np.nan, (2, m, 1))))


def test_tampered_clean_logits_are_found(claims):
    found = texts(changed(claims, "clean_logits", claims.clean_logits[0, 3, 0] + 0.01, (0, 3, 0)))
    assert any(text.startswith("clean, sample 3") for text in found)


def test_a_wrong_exit_or_prediction_is_found(claims):
    m, _ = a_break(claims)
    exit_ = claims.exits[m]
    (first, *_) = texts(changed(claims, "exits", (exit_ + 1) % 3, m))
    assert f"claimed to leave at exit {(exit_ + 1) % 3 + 1}" in first and f"found exit {exit_ + 1}" in first
    other = next(c for c in range(5) if c not in (claims.predictions[m], claims.labels[claims.row[m]]))
    assert any(f"as class {other}" in text for text in texts(changed(claims, "predictions", other, m)))


def test_a_break_that_is_none_is_found(claims):
    broken, not_broken = a_break(claims)
    assert any("claimed broken, but predicted" in text for text in texts(changed(claims, "broken", True, not_broken)))
    assert any("claimed not broken, but predicted" in text for text in texts(changed(claims, "broken", False, broken)))


def test_an_image_in_the_ball_that_breaks_nothing_is_found_and_the_worst_case_with_it(claims):
    """All counterexamples of one sample replaced by its clean image: its break is claimed, nothing proves it."""
    right = (deployed(claims.clean_logits, claims.policy)[1] == claims.labels)[claims.row]
    row = claims.row[np.flatnonzero(claims.broken & right)[0]]
    images = claims.images.copy()
    images[claims.row == row] = claims.clean_images[row]
    found = texts(replace(claims, images=images))
    assert f"worst case, sample {row}: claimed broken, but no counterexample that holds breaks it" in found


def test_one_counterexample_that_holds_is_enough_for_the_worst_case(claims):
    right = (deployed(claims.clean_logits, claims.policy)[1] == claims.labels)[claims.row]
    rows, times = np.unique(claims.row[claims.broken & right], return_counts=True)
    row = rows[times > 1][0]
    m = int(np.flatnonzero(claims.broken & (claims.row == row))[0])
    images = claims.images.copy()
    images[m] = claims.clean_images[row]
    found = verified(replace(claims, images=images))
    assert [mismatch.where for mismatch in found.mismatches] == [claims.where(m)]
    assert found.worst == verified(claims).worst


def test_other_weights_than_claimed_are_one_mismatch(claims):
    assert texts(claims, "1" * 64) == ["weights: claimed SHA-256 0000000000000000..., found 1111111111111111..."]


def test_claims_of_other_exits_are_one_mismatch(claims):
    fewer = replace(claims, clean_logits=claims.clean_logits[:, :, :4], logits=claims.logits[:, :, :4])
    assert any(text.startswith("logits: claimed of shape (3, 70, 4), found (3, 70, 5)") for text in texts(fewer))


@pytest.mark.parametrize("name", ["none", "worst"])
def test_a_reported_figure_that_its_claims_do_not_make_is_found(claims, name):
    found = verified(claims)
    true = {"none": found.clean, "worst": found.worst}
    assert texts(replace(claims, reported=true)) == []
    (text,) = texts(replace(claims, reported={**true, name: true[name] + 1}))
    said = f"reported {name}: reported {true[name] + 1} of 70 right, the claims on file make it {true[name]}"
    assert text == f"{said}; is the leaderboard older than the store? `exitbench report` writes it again"
    assert texts(replace(claims, reported={**true, name: true[name] - 1})) == [
        f"reported {name}: reported {true[name] - 1} of 70 right, the claims on file make it {true[name]}"
    ]


def on_the_threshold(claims, m):
    """The claims under a threshold that counterexample ``m`` misses by nothing at exit 1, and its entropy there."""
    logits = Scorer(NET)(claims.images)
    threshold = float(entropy(torch.from_numpy(logits[0, m : m + 1])).double())
    policy = EntropyPolicy((threshold, claims.policy.thresholds[1]))
    exits, predictions = deployed(claims.logits, policy)
    broken = predictions != claims.labels[claims.row]
    subject = another(claims.subject, policy=policy_text(policy))
    return replace(claims, subject=subject, exits=exits, predictions=predictions, broken=broken), policy


def test_within_rounding_of_a_threshold_is_counted_apart_and_no_mismatch(claims):
    """Claimed logits a little surer than those found leave at a gate that those found miss by nothing."""
    for m in np.flatnonzero(claims.exits == 2).tolist():
        found, policy = on_the_threshold(claims, m)
        logits = found.logits.copy()
        logits[0, m] *= 1 + 1e-5
        exits, predictions = deployed(logits, policy)
        if exits[m] == 0:  # the entropy of others does not change by a bit
            claims = found
            break
    assert exits[m] == 0
    near = replace(claims, logits=logits, exits=exits, predictions=predictions, broken=predictions != claims.labels[claims.row])
    found = verified(near)
    assert found.mismatches == ()
    assert np.flatnonzero(found.borderline).tolist() == [m]


def test_beyond_rounding_of_a_threshold_is_a_mismatch(claims):
    """The exit is claimed without logits that take it."""
    m = int(np.flatnonzero(claims.exits == 2)[0])
    claims, _ = on_the_threshold(claims, m)
    label = claims.labels[claims.row[m]]
    prediction = int(claims.logits[0, m].argmax())
    forged = changed(changed(changed(claims, "exits", 0, m), "predictions", prediction, m), "broken", prediction != label, m)
    assert any(claims.where(m) in text and "claimed to leave at exit 1" in text for text in texts(forged))


def test_logits_within_the_tolerance_hold(claims):
    m, _ = a_break(claims)
    found = verified(changed(claims, "logits", claims.logits[0, m, 0] + TOLERANCE / 4, (0, m, 0)))
    assert not found.mismatches


@given(st.integers(0, 2**31), st.sampled_from(["Linf", "L2"]), st.floats(0.01, 1))
def test_whatever_the_harness_certifies_is_in_the_second_check_s_ball(seed, norm, eps):
    """The check of its own never refuses what the judge lets pass, and refuses what is beyond."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(1, 3, 8, 8, generator=generator)
    ball = ThreatModel(norm, eps)
    image = ball.project(clean + torch.randn(clean.shape, generator=generator), clean)
    assert ball.distance(image, clean).item() <= eps + CERTIFIED[norm]
    assert outside(image[0].numpy(), clean[0].numpy(), norm, eps) is None
    assert distance(image[0].numpy(), clean[0].numpy(), norm) == pytest.approx(ball.distance(image, clean).item(), rel=1e-5)
    if (reach := distance(image[0].numpy(), clean[0].numpy(), norm)) > 2 * SLACK[norm]:
        assert "found at" in outside(image[0].numpy(), clean[0].numpy(), norm, reach - 2 * SLACK[norm])


def test_an_exported_file_says_the_same(claims):
    (back,) = from_bytes(to_bytes([claims]), "file")
    assert back.subject == claims.subject and back.sources == claims.sources
    for name in ("indices", "labels", "inputs", "clean_images", "images", "logits", "exits", "predictions", "broken"):
        assert np.array_equal(getattr(back, name), getattr(claims, name)), name
    assert texts(back) == []
    assert to_bytes([claims]) == to_bytes([back])

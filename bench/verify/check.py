"""Checks claims against the plain model: every counterexample, the clean pass, and the worst case derived from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from exitbench.models.cost import measure_costs
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.spec import digest
from exitbench.verify.ball import off_grid, outside
from exitbench.verify.claims import Bools, Claims, Floats, Ints, Mismatch
from exitbench.verify.evidence import cost_mismatches, name_mismatch
from exitbench.verify.scorer import Scorer

TOLERANCE = 1e-4
"""Largest difference of a logit from the claimed one, relative to the image's largest (at least 1): fp32 sums differ by machine.

Batch sizes, memory layouts and double precision change logits of RDI-ResNet38 by 2e-6, bfloat16 (not allowed) by 2e-2."""


@dataclass(frozen=True, eq=False)
class Verified:
    """The result of verification.

    Attributes:
        claims: The claims.
        mismatches: Claims that do not hold.
        borderline: ``(M,)`` bool, counterexamples whose exit or prediction differs here, within rounding of a threshold or tie.
        clean_borderline: ``(n,)`` bool, the same for clean images.
        clean: Number of samples that are right on the clean image here.
        worst: Number of these that no counterexample breaks here.
        robust: ``(n,)`` bool, which ones these are.
    """

    claims: Claims
    mismatches: tuple[Mismatch, ...]
    borderline: Bools
    clean_borderline: Bools
    clean: int
    worst: int
    robust: Bools


def verify(claims: Claims, scorer: Scorer, weights: str) -> Verified:
    """Check all claims with the model in ``scorer``, whose weights have the digest ``weights``.

    Raises:
        ValueError: If the text of the policy is invalid.
    """
    m, n = len(claims.row), len(claims.indices)
    mismatches = list(claims.flaws)
    if weights != claims.subject.weights:
        mismatches.append(Mismatch("weights", f"claimed SHA-256 {claims.subject.weights[:16]}..., found {weights[:16]}..."))
        return _nothing(claims, mismatches)
    policy = claims.policy
    mismatches += _input_mismatches(claims)
    mismatches += _subject_mismatches(claims, scorer)

    # Reports derive the clean accuracy from the claimed logits; so does this.
    exits, predictions = deployed(claims.clean_logits, policy)
    clean_logits = scorer(claims.clean_images)
    if clean_logits.shape != claims.clean_logits.shape:
        what = f"claimed of shape {claims.clean_logits.shape}, found {clean_logits.shape} (exits, samples, classes)"
        return _nothing(claims, [*mismatches, Mismatch("logits", what)])
    clean = _judge(claims.clean_logits, clean_logits, exits, predictions, policy)
    mismatches += clean.mismatches(lambda i: f"clean, sample {claims.indices[i]}")

    faults = {i: fault for i in range(m) if (fault := _fault(claims, i)) is not None}
    mismatches += [Mismatch(claims.where(i), fault) for i, fault in faults.items()]
    valid = np.array([i for i in range(m) if i not in faults], dtype=np.int64)
    judged = _judge(claims.logits[:, valid], scorer(claims.images[valid]), claims.exits[valid], claims.predictions[valid], policy)
    mismatches += judged.mismatches(lambda i: claims.where(int(valid[i])))
    borderline = np.zeros(m, dtype=np.bool_)
    borderline[valid] = judged.borderline

    proven = np.zeros(m, dtype=np.bool_)
    proven[valid] = ~judged.wrong & (judged.predictions != claims.labels[claims.row[valid]])
    right = clean.predictions == claims.labels
    robust = right & ~_any_by_row(proven, claims.row, n)
    claimed_right = predictions == claims.labels
    claimed = claimed_right & ~_any_by_row(claims.broken, claims.row, n)
    uncertain = clean.borderline | _any_by_row(borderline, claims.row, n)
    mismatches += _worst_mismatches(claims, claimed, robust, uncertain)
    mismatches += _reported_mismatches(claims, {"none": int(claimed_right.sum()), "worst": int(claimed.sum())})
    return Verified(claims, tuple(mismatches), borderline, clean.borderline, int(right.sum()), int(robust.sum()), robust)


def _subject_mismatches(claims: Claims, scorer: Scorer) -> list[Mismatch]:
    """Return what is claimed of the network's name and costs and is not so."""
    name = name_mismatch(claims.subject)
    costs = measure_costs(scorer.model, claims.clean_images.shape[1:]) if claims.records else None
    of_costs = [found for record in claims.records if costs for found in cost_mismatches(record, costs)]
    return [*([name] if name else []), *dict.fromkeys(of_costs)]


def _nothing(claims: Claims, mismatches: list[Mismatch]) -> Verified:
    """Return the result if nothing can be scored."""
    no_rows, no_samples = np.zeros(len(claims.row), dtype=np.bool_), np.zeros(len(claims.indices), dtype=np.bool_)
    return Verified(claims, tuple(mismatches), no_rows, no_samples, 0, 0, no_samples)


def deployed(logits: Floats, policy: Policy) -> tuple[Ints, Ints]:
    """Return the exit taken (0-based) and the class predicted there, ``(B,)`` each, from logits ``(K, B, classes)``."""
    predicted, exits = deployed_logits(torch.from_numpy(logits), policy)
    return exits.numpy(), predicted.argmax(-1).numpy()


@dataclass(frozen=True, eq=False)
class _Judged:
    """Rows compared: ``wrong`` do not hold, ``borderline`` hold up to rounding; ``predictions`` are those found."""

    wrong: Bools
    borderline: Bools
    predictions: Ints
    texts: dict[int, str]

    def mismatches(self, where: Callable[[int], str]) -> list[Mismatch]:
        return [Mismatch(where(i), text) for i, text in self.texts.items()]


def _judge(claimed: Floats, found: Floats, exits: Ints, predictions: Ints, policy: Policy) -> _Judged:
    """Compare claimed logits, exits and predictions with the logits found."""
    n = claimed.shape[1]
    if not n:
        nothing = np.zeros(0, dtype=np.bool_)
        return _Judged(nothing, nothing, np.zeros(0, np.int64), {})
    found_exits, found_predictions = deployed(found, policy)
    said_exits, said_predictions = deployed(claimed, policy)
    off = _difference(claimed, found)
    close = off <= TOLERANCE
    same = (found_exits == exits) & (found_predictions == predictions)
    # The claimed logits agree up to rounding and give the claimed decision: only rounding makes the difference.
    borderline = close & ~same & (said_exits == exits) & (said_predictions == predictions)
    texts = {}
    for i in np.flatnonzero(~(close & (same | borderline))).tolist():
        if same[i]:
            texts[i] = f"claimed logits are off by {off[i]:.3g} of the largest, {TOLERANCE:g} is allowed"
        else:
            texts[i] = (
                f"claimed to leave at exit {exits[i] + 1} as class {predictions[i]}, "
                f"found exit {found_exits[i] + 1} and class {found_predictions[i]}"
            )
    return _Judged(~(close & (same | borderline)), borderline, found_predictions, texts)


def _difference(claimed: Floats, found: Floats) -> npt.NDArray[np.float64]:
    """Return the largest difference of a logit in each row ``(B,)``, relative to the row's largest; infinite if one is NaN."""
    scale = np.maximum(1, np.abs(found).max(axis=(0, 2)))
    off = np.abs(claimed.astype(np.float64) - found).max(axis=(0, 2)) / scale
    return np.where(np.isfinite(off), off, np.inf)


def _fault(claims: Claims, m: int) -> str | None:
    row = claims.row[m]
    image, clean, subject = claims.images[m], claims.clean_images[row], claims.subject
    fault = outside(image, clean, subject.norm, subject.eps) or off_grid(image, clean, subject.grid)
    if fault is not None:
        return fault
    if claims.broken[m] != (claims.predictions[m] != claims.labels[row]):
        says = "broken" if claims.broken[m] else "not broken"
        return f"claimed {says}, but predicted {claims.predictions[m]} where the label is {claims.labels[row]}"
    return None


def _input_mismatches(claims: Claims) -> list[Mismatch]:
    found = []
    texts = [row.tobytes().hex() for row in claims.inputs]
    for i, (image, label) in enumerate(zip(claims.clean_images, claims.labels, strict=True)):
        pixels = np.ascontiguousarray(image, dtype="<f4").tobytes() + np.int64(label).astype("<i8").tobytes()
        text = hashlib.sha256(pixels).hexdigest()
        if text != texts[i]:
            what = f"claimed input hash {texts[i][:16]}..., its clean image and label hash to {text[:16]}..."
            found.append(Mismatch(f"sample {claims.indices[i]}", what))
    if (text := digest(texts)) != claims.subject.data:
        found.append(Mismatch("data", f"claimed digest {claims.subject.data[:16]}..., the inputs' is {text[:16]}..."))
    return found


def _worst_mismatches(claims: Claims, claimed: Bools, robust: Bools, uncertain: Bools) -> list[Mismatch]:
    found = []
    for i in np.flatnonzero((claimed != robust) & ~uncertain).tolist():
        what = (
            "claimed robust, but a counterexample breaks it"
            if claimed[i]
            else "claimed broken, but no counterexample that holds breaks it"
        )
        found.append(Mismatch(f"worst case, sample {claims.indices[i]}", what))
    return found


def _reported_mismatches(claims: Claims, counts: dict[str, int]) -> list[Mismatch]:
    n = len(claims.indices)
    found = []
    for name, count in counts.items():
        reported = claims.reported.get(name, count)
        if reported != count:
            older = "; is the leaderboard older than the store? `exitbench report` writes it again" if reported > count else ""
            what = f"reported {reported} of {n} right, the claims on file make it {count}{older}"
            found.append(Mismatch(f"reported {name}", what))
    return found


def _any_by_row(flags: Bools, row: Ints, n: int) -> Bools:
    """Return whether any counterexample of each of the n samples is flagged, ``(n,)``."""
    out = np.zeros(n, dtype=np.bool_)
    out[row[flags]] = True
    return out

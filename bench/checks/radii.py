"""Checks across radii: robust accuracy must fall with the radius, and be 0 where the ball contains the whole box."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

from msgspec.structs import replace
from torch import Tensor

from exitbench.attacks.regions import ThreatModel
from exitbench.checks.flag import Flag, Level
from exitbench.checks.leads import LEVEL
from exitbench.checks.share import TOO_FEW, ShareTest, Verdict
from exitbench.checks.subject import Subject
from exitbench.checks.trace import ascend, broken_in
from exitbench.runner.oom import in_halves
from exitbench.stats.proportions import sign_test
from exitbench.store.trust_result import AtRadius, Radii

STEPS, STEP_RATIO = 20, 0.25
"""Steps, and step size over the radius, of the ascents here: fixed, because they test the model and not the attack."""

RESTARTS = 4
"""Random starts of the unbounded ascent; only survivors are started again."""

CHANCE = 0.05
"""Level of the sign test for an accuracy that rises with the radius in results of versions 1 and 2; since then ``LEVEL``."""

SURVIVORS = ShareTest(0.0, 0.01)
"""Of a faithful network, one sample in a hundred may outlive the unbounded ascent, for lack of steps."""

FALL_AT_USUAL, FALL_AT_TWICE = 0.03, 0.2
"""Smallest share of the samples that an ascent breaks of the best defences known: at the dataset's usual radius (MNIST at 0.3, of
Madry et al., ICLR 2018, loses 5 %), and at twice that (CIFAR-10 at 16/255: over 40 %; MNIST at 0.6: all)."""


def measure(subject: Subject, at_eps: Sequence[int] | None = None) -> Radii:
    """Measure which samples, all right when clean, some iterate of an ascent breaks at each radius.

    Args:
        subject: The samples.
        at_eps: Dataset indices broken at the evaluation's radius, if an ascent of these steps has been run already.
    """
    region, eps = subject.settings.region, subject.settings.region.eps
    whole = dataclasses.replace(region, eps=1.0 if region.norm == "Linf" else math.sqrt(subject.x[:1].numel()))
    wanted = [dataclasses.replace(region, eps=radius) for radius in (eps / 2, eps, 2 * eps) if at_eps is None or radius != eps]
    found = _broken_at_start(subject, [*wanted, whole])
    broken = {ball.eps: subject.names(each) for ball, each in zip(wanted, found[:-1], strict=True)}
    if at_eps is not None:
        broken[eps] = tuple(sorted(at_eps))
    radii = tuple(AtRadius(eps=radius, broken=tuple(sorted(broken[radius]))) for radius in (eps / 2, eps, 2 * eps))
    outlived = subject.rows(~found[-1])
    painted = (*subject.names(found[-1]), *_broken_from_other_starts(outlived, whole))
    return Radii(radii=radii, unbounded=AtRadius(eps=whole.eps, broken=tuple(sorted(painted))), right=subject.noise.samples)


def joined(one: Radii, other: Radii) -> Radii:
    """Return the numbers of both sets of samples."""
    return replace(
        one,
        radii=tuple(_both(a, b) for a, b in zip(one.radii, other.radii, strict=True)),
        unbounded=_both(one.unbounded, other.unbounded),
        right=(one.right or ()) + (other.right or ()),
    )


def _both(one: AtRadius, other: AtRadius) -> AtRadius:
    return AtRadius(eps=one.eps, broken=tuple(sorted({*one.broken, *other.broken})))


def undecided(numbers: Radii, usual_eps: float) -> bool:
    """Return whether more samples are needed to tell chance from a fault."""
    found = flags(numbers, len(numbers.right or ()), usual_eps)
    return any(flag.level == "warning" for flag in found) and not any(flag.level == "failure" for flag in found)


def _broken_at_start(subject: Subject, balls: Sequence[ThreatModel]) -> list[Tensor]:
    """Return which samples an ascent from the first random start breaks in each ball; on a GPU the balls are one batch."""
    together = len(balls) if subject.x.device.type == "cuda" else 1
    found: list[Tensor] = []
    for start in range(0, len(balls), together):
        some = balls[start : start + together]
        parts = in_halves(lambda part, some=some: broken_in(subject, some[part], STEPS, STEP_RATIO), slice(0, len(some)))  # type: ignore[misc]
        found += [each for part in parts for each in part]
    return found


def _broken_from_other_starts(subject: Subject, threat_model: ThreatModel) -> tuple[int, ...]:
    broken: list[int] = []
    for restart in range(1, RESTARTS):
        if not len(subject.y):
            break
        found = ascend(subject, threat_model, STEPS, STEP_RATIO * threat_model.eps, restart).broken
        broken += subject.names(found)
        subject = subject.rows(~found)
    return tuple(broken)


def flags(numbers: Radii, samples: int, usual_eps: float) -> list[Flag]:
    """Return the flags ``unbounded attack fails``, ``accuracy rises with eps`` and ``accuracy does not fall with eps``.

    Each is a failure if an exact test says so, and a warning where the samples are too few for it. Without these, the curve
    itself is returned for the record.

    Args:
        numbers: Result of ``measure``.
        samples: Number of samples that are right when clean, of results that do not hold them.
        usual_eps: The dataset's usual radius. Every known defence loses accuracy there, and so must the model at ``2 eps`` if
            that is no smaller. Below, a flat curve proves nothing and is not flagged.
    """
    samples = samples if numbers.right is None else len(numbers.right)
    found = [*_unbounded(numbers, samples), *_rises(numbers, samples), *_flat(numbers, samples, usual_eps)]
    return found or [_curve(numbers, samples)]


def _curve(numbers: Radii, samples: int) -> Flag:
    shares = {f"eps {each.eps:.4g}": 1 - len(each.broken) / samples for each in (*numbers.radii, numbers.unbounded)}
    text = ", ".join(f"{100 * share:.0f} % at {eps}" for eps, share in shares.items())
    return Flag("accuracy by radius", "info", shares, f"one gradient attack leaves {text} of {samples} samples")


def _unbounded(numbers: Radii, samples: int) -> list[Flag]:
    left = samples - len(numbers.unbounded.broken)
    verdict = SURVIVORS.verdict(left, samples, numbers.looks) if numbers.right is not None else "yes" if left else "no"
    if verdict == "no" or (verdict == "undecided" and left <= SURVIVORS.chance * samples):
        return []
    message = (
        f"an attack that may change every pixel at will (eps {numbers.unbounded.eps:.4g}, {RESTARTS} starts of {STEPS} steps) "
        f"leaves {left} of {samples} samples right, where none should be: {_cure(verdict)}"
    )
    return [Flag("unbounded attack fails", _level(verdict), {"left": left, "samples": samples}, message)]


def _rises(numbers: Radii, samples: int) -> list[Flag]:
    found = []
    steps = [*numbers.radii, numbers.unbounded]
    level = CHANCE if numbers.right is None else LEVEL / numbers.looks / (len(steps) - 1)
    for small, large in pairwise(steps):
        lost, gained = set(small.broken) - set(large.broken), set(large.broken) - set(small.broken)
        p = sign_test(len(lost), len(gained))
        if small.eps < large.eps and len(lost) > len(gained) and p < CHANCE:
            verdict: Verdict = "yes" if p < level else "undecided"
            shares = [100 * (1 - len(each.broken) / samples) for each in (small, large)]
            message = (
                f"accuracy rises from {shares[0]:.0f} % at eps {small.eps:.4g} to {shares[1]:.0f} % at {large.eps:.4g}, "
                f"although the larger ball contains the smaller: the attack fails; {_cure(verdict)}"
            )
            numbers_shown = {"small": small.eps, "large": large.eps, "lost": len(lost), "gained": len(gained)}
            found.append(Flag("accuracy rises with eps", _level(verdict), numbers_shown, message))
    return sorted(found, key=lambda flag: flag.level != "failure")[:1]


def _flat(numbers: Radii, samples: int, usual_eps: float) -> list[Flag]:
    largest = numbers.radii[-1]
    if largest.broken or not samples or largest.eps < usual_eps:
        return []
    falls = FALL_AT_TWICE if largest.eps >= 2 * usual_eps * (1 - 1e-9) else FALL_AT_USUAL
    decided = numbers.right is None or (1 - falls) ** samples < LEVEL / numbers.looks
    verdict: Verdict = "yes" if decided else "undecided"
    message = (
        f"the attack breaks none of {samples} samples even at eps {largest.eps:.4g}, twice the evaluation's: it does not "
        f"work on this model; {_cure(verdict)}"
    )
    shown = {"eps": largest.eps, "samples": samples}
    return [Flag("accuracy does not fall with eps", _level(verdict), shown, message)]


def _level(verdict: Verdict) -> Level:
    return "failure" if verdict == "yes" else "warning"


def _cure(verdict: Verdict) -> str:
    """Return what to do; the ascents here have steps of their own, and the loss of the evaluation."""
    if verdict != "yes":
        return TOO_FEW
    return (
        "attack with another --loss (margin, ce) and --attack single; if that changes nothing, gradients are masked and the "
        "number is not valid"
    )

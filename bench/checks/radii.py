"""Checks across radii: robust accuracy must fall with the radius, and be 0 where the ball contains the whole box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from exitbench.attacks.regions import ThreatModel
from exitbench.checks.flag import Flag
from exitbench.checks.subject import Subject
from exitbench.checks.trace import ascend
from exitbench.stats.proportions import sign_test
from exitbench.store.trust_result import AtRadius, Radii

STEPS, STEP_RATIO = 20, 0.25
"""Steps, and step size over the radius, of the ascents here: fixed, because they test the model and not the attack."""

RESTARTS = 4
"""Random starts of the unbounded ascent; only survivors are started again."""

CHANCE = 0.05
"""Level of the sign test for an accuracy that rises with the radius."""


def measure(subject: Subject, at_eps: Sequence[int] | None = None) -> Radii:
    """Measure which samples, all right when clean, some iterate of an ascent breaks at each radius.

    Args:
        subject: The samples.
        at_eps: Dataset indices broken at the evaluation's radius, if an ascent of these steps has been run already.
    """
    threat_model = subject.settings.region
    known = {} if at_eps is None else {threat_model.eps: tuple(sorted(at_eps))}
    radii = tuple(
        AtRadius(eps=eps, broken=known[eps] if eps in known else _broken(subject, ThreatModel(threat_model.norm, eps), 1))
        for eps in (threat_model.eps / 2, threat_model.eps, 2 * threat_model.eps)
    )
    whole = ThreatModel(threat_model.norm, 1.0 if threat_model.norm == "Linf" else math.sqrt(subject.x[:1].numel()))
    return Radii(radii=radii, unbounded=AtRadius(eps=whole.eps, broken=_broken(subject, whole, RESTARTS)))


def _broken(subject: Subject, threat_model: ThreatModel, restarts: int) -> tuple[int, ...]:
    broken: list[int] = []
    for restart in range(restarts):
        if not len(subject.y):
            break
        found = ascend(subject, threat_model, STEPS, STEP_RATIO * threat_model.eps, restart).broken
        broken += subject.names(found)
        subject = subject.rows(~found)
    return tuple(sorted(broken))


def flags(numbers: Radii, samples: int, usual_eps: float) -> list[Flag]:
    """Return the failures ``unbounded attack fails``, ``accuracy rises with eps`` and ``accuracy does not fall with eps``.

    Without failures, the curve itself is returned for the record.

    Args:
        numbers: Result of ``measure``.
        samples: Number of samples that are right when clean.
        usual_eps: The dataset's usual radius. Every known defence loses accuracy there, and so must the model at ``2 eps`` if
            that is no smaller. Below, a flat curve proves nothing and is not flagged.
    """
    failures = [*_unbounded(numbers, samples), *_rises(numbers, samples), *_flat(numbers, samples, usual_eps)]
    return failures or [_curve(numbers, samples)]


def _curve(numbers: Radii, samples: int) -> Flag:
    shares = {f"eps {each.eps:.4g}": 1 - len(each.broken) / samples for each in (*numbers.radii, numbers.unbounded)}
    text = ", ".join(f"{100 * share:.0f} % at {eps}" for eps, share in shares.items())
    return Flag("accuracy by radius", "info", shares, f"one gradient attack leaves {text} of {samples} samples")


def _unbounded(numbers: Radii, samples: int) -> list[Flag]:
    left = samples - len(numbers.unbounded.broken)
    if not left:
        return []
    message = (
        f"an attack free to paint any image (eps {numbers.unbounded.eps:.4g}, {RESTARTS} starts of {STEPS} steps) leaves "
        f"{left} of {samples} samples right, where none should be: gradients are masked; see the other flags for how"
    )
    return [Flag("unbounded attack fails", "failure", {"left": left, "samples": samples}, message)]


def _rises(numbers: Radii, samples: int) -> list[Flag]:
    found = []
    steps = [*numbers.radii, numbers.unbounded]
    for small, large in pairwise(steps):
        lost, gained = set(small.broken) - set(large.broken), set(large.broken) - set(small.broken)
        if small.eps < large.eps and len(lost) > len(gained) and sign_test(len(lost), len(gained)) < CHANCE:
            shares = [100 * (1 - len(each.broken) / samples) for each in (small, large)]
            message = (
                f"accuracy rises from {shares[0]:.0f} % at eps {small.eps:.4g} to {shares[1]:.0f} % at {large.eps:.4g}, "
                "though the larger ball holds the smaller: the attack fails there; gradients are masked"
            )
            numbers_shown = {"small": small.eps, "large": large.eps, "lost": len(lost), "gained": len(gained)}
            found.append(Flag("accuracy rises with eps", "failure", numbers_shown, message))
    return found[:1]


def _flat(numbers: Radii, samples: int, usual_eps: float) -> list[Flag]:
    largest = numbers.radii[-1]
    if largest.broken or not samples or largest.eps < usual_eps:
        return []
    message = (
        f"the attack breaks none of {samples} samples even at eps {largest.eps:.4g}, twice the evaluation's: it does not "
        "work on this model; gradients are masked"
    )
    return [Flag("accuracy does not fall with eps", "failure", {"eps": largest.eps, "samples": samples}, message)]

"""Checks along the path of the evaluation's gradient attack: whether it stopped too early, or lost a success on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from msgspec.structs import replace

from exitbench.attacks.pgd import Keep
from exitbench.checks.flag import Flag
from exitbench.checks.share import TOO_FEW, ShareTest, Verdict
from exitbench.checks.subject import Subject
from exitbench.checks.trace import Trace
from exitbench.store.trust_result import AscentPath

LAST = 0.1
"""Share of the steps that counts as the end."""

STILL_RISING = 0.5
"""Gain in the last steps, relative to the mean gain of as many steps, above which a sample's ascent is unfinished: it is near 0
once an ascent has converged, and 1 while it rises steadily."""

UNFINISHED = ShareTest(0.5, 0.25)
"""An attack is unfinished if at least half of the robust samples are; with a fixed step size up to a quarter always is."""

UNFINISHED_SAMPLES = 3
"""In results of versions 1 and 2, half of the robust samples and this number count as unfinished, without a test."""

BLIND = 0.5
"""Share of steps that change the exit taken above which an attack on the deployed view (such as AutoAttack's) is blind: it sees
the gradient of the exit taken alone, and more often than not the next step is decided at another exit."""


def measure(subject: Subject, trace: Trace, keep: Keep) -> AscentPath:
    """Measure the path of the attack on the samples that are right when clean."""
    steps = len(trace.values) - 1
    reached = trace.values.argmax(0)
    returned = trace.wrong.gather(0, (reached if keep == "best" else torch.full_like(reached, steps))[None])[0]
    last = max(1, round(LAST * steps))
    best = trace.values.cummax(0).values
    mean_gain, late_gain = (best[-1] - best[0]) / steps, (best[-1] - best[-1 - last]) / last
    return AscentPath(
        keep=keep,
        steps=steps,
        on_path=subject.names(trace.broken),
        returned=subject.names(returned),
        late=subject.names(~trace.broken & (reached > steps - last)),
        rising=subject.names(~trace.broken & (late_gain > STILL_RISING * mean_gain)),
        switches=float((trace.exits[1:] != trace.exits[:-1]).double().mean()),
        right=subject.noise.samples,
    )


def joined(one: AscentPath, other: AscentPath) -> AscentPath:
    """Return the numbers of both sets of samples."""
    right, others = one.right or (), other.right or ()
    n = max(1, len(right) + len(others))
    return replace(
        one,
        on_path=one.on_path + other.on_path,
        returned=one.returned + other.returned,
        late=one.late + other.late,
        rising=one.rising + other.rising,
        switches=min(1.0, (len(right) * one.switches + len(others) * other.switches) / n),
        right=right + others,
    )


def undecided(numbers: AscentPath) -> bool:
    """Return whether more samples are needed to tell an unfinished ascent from a few samples that are still rising."""
    left = len(numbers.right or ()) - len(numbers.on_path)
    return UNFINISHED.verdict(len(numbers.rising), left, numbers.looks) == "undecided"


def flags(numbers: AscentPath, probed: Sequence[int], robust: set[int] | None) -> list[Flag]:
    """Return the flags ``silent success``, ``unfinished optimisation`` and ``exit switches``, each a warning or for the record.

    Args:
        numbers: Result of ``measure``.
        probed: Dataset indices of the samples of results that do not hold them, all right when clean.
        robust: Dataset indices that the whole evaluation leaves robust; None if it has no attack.
    """
    probed = probed if numbers.right is None else numbers.right
    return [*_silent(numbers, len(probed), robust or set()), *_unfinished(numbers, probed, robust), *_switches(numbers)]


def _silent(numbers: AscentPath, samples: int, robust: set[int]) -> list[Flag]:
    lost = set(numbers.on_path) - set(numbers.returned)
    if not lost:
        return []
    missed = lost & robust
    message = (
        f"on {len(lost)} of {samples} samples the gradient attack passed an image that breaks the network, but returned one "
        f"(keep {numbers.keep}) that does not"
    )
    if missed:
        message += f"; {len(missed)} of them still count as robust: add --attack adaptive, which tests every image on its way"
    else:
        message += "; none of them counts as robust, so nothing is lost"
    counts = {"lost": len(lost), "missed": len(missed), "samples": samples}
    return [Flag("silent success", "warning" if missed else "info", counts, message)]


def _unfinished(numbers: AscentPath, probed: Sequence[int], robust: set[int] | None) -> list[Flag]:
    """Return the flag for an unfinished ascent; only samples that every attack of the evaluation leaves robust count."""
    left = set(probed) & (set(probed) - set(numbers.on_path) if robust is None else robust)
    rising, late = left & set(numbers.rising), left & set(numbers.late)
    if not rising:
        return []
    verdict = _unfinished_verdict(numbers, len(rising), len(left))
    message = (
        f"after {numbers.steps} steps the loss was still rising, at over half its mean rate, on {len(rising)} of the {len(left)} "
        f"samples that stayed robust (best value in the last steps on {len(late)})"
    )
    message += {"yes": "; give more --steps", "undecided": f"; {TOO_FEW}", "no": "; too few to matter"}[verdict]
    counts = {"rising": len(rising), "late": len(late), "robust": len(left), "steps": numbers.steps}
    return [Flag("unfinished optimisation", "warning" if verdict == "yes" else "info", counts, message)]


def _unfinished_verdict(numbers: AscentPath, rising: int, left: int) -> Verdict:
    if numbers.right is None:
        return "yes" if rising >= UNFINISHED_SAMPLES and rising >= UNFINISHED.least * left else "no"
    return UNFINISHED.verdict(rising, left, numbers.looks)


def _switches(numbers: AscentPath) -> list[Flag]:
    share = numbers.switches
    blind = share > BLIND
    message = f"the exit taken changes at {100 * share:.1f} % of the attack's steps"
    if blind:
        message += (
            ": the gradient at the deployed exit mostly belongs to another exit, so accuracy under attacks that see the deployed "
            "exit alone (autoattack, torchattacks) is not valid; add --attack adaptive,average, which see all exits"
        )
    return [Flag("exit switches", "warning" if blind else "info", {"share": share}, message)]

"""The measurements of the probe on further samples, each until its own comparison is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from msgspec.structs import replace

from exitbench.attacks.noise import Noise
from exitbench.attacks.settings import AttackSettings
from exitbench.checks import controls, gradients, hidden, path, radii
from exitbench.checks.growth import Growth
from exitbench.checks.subject import Subject
from exitbench.checks.trace import SoftRule, Trace, ascend
from exitbench.checks.transfer import Source
from exitbench.data.split import Batch
from exitbench.store.trust_result import AscentPath, AtRadius, Controls, Gradients, Hidden, Radii
from exitbench.target.target import Target


@dataclass(frozen=True, eq=False)
class Subjects:
    """What is probed, on any batch.

    Attributes:
        target: The target.
        settings: Of the evaluation's gradient attacks.
        seed: Of the evaluation.
        noise: Kind of the random numbers.
    """

    target: Target
    settings: AttackSettings
    seed: int
    noise: type[Noise] = Noise

    def of(self, batch: Batch) -> Subject:
        """Return the subject with the samples of ``batch``."""
        device = next(self.target.model.parameters()).device
        x, y = batch.x.to(device), batch.y.to(device)
        model, policy, noise = self.target.checked, self.target.policy, self.noise(self.seed, batch.indices)
        recorded = None if self.target.searched_again is model else self.target.searched_again
        return Subject(model, policy, x, y, noise, self.settings, recorded)

    def right(self, batch: Batch) -> Subject:
        """Return the subject with those samples that are right when clean."""
        subject = self.of(batch)
        return subject.rows(~subject.fails(subject.x))


@dataclass(frozen=True, eq=False)
class Further:
    """Adds further samples to the measurements of the first slice.

    Attributes:
        subjects: What is probed.
        growth: Where further samples come from.
        sources: Networks without a defence.
    """

    subjects: Subjects
    growth: Growth
    sources: Sequence[Source] = ()

    def gradients(self, first: Gradients) -> Gradients:
        """Return the gradients' numbers on as many samples as decide."""

        def measured(batch: Batch) -> Gradients:
            return gradients.measure(self.subjects.of(batch))

        return self.growth.grown(first, measured, gradients.joined, gradients.undecided)

    def path(self, first: AscentPath) -> AscentPath:
        """Return the path's numbers on as many samples as decide."""

        def measured(batch: Batch) -> AscentPath:
            right = self.subjects.right(batch)
            if not len(right.y):
                return replace(first, on_path=(), returned=(), late=(), rising=(), right=(), switches=0.0)
            return path.measure(right, attacked(right), right.settings.keep)

        return self.growth.grown(first, measured, path.joined, path.undecided)

    def radii(self, first: Radii, usual_eps: float) -> Radii:
        """Return the numbers across radii on as many samples as decide."""

        def measured(batch: Batch) -> Radii:
            right = self.subjects.right(batch)
            if not len(right.y):
                none = tuple(AtRadius(eps=each.eps, broken=()) for each in (*first.radii, first.unbounded))
                return replace(first, radii=none[:-1], unbounded=none[-1], right=())
            return radii.measure(right)

        return self.growth.grown(first, measured, radii.joined, lambda numbers: radii.undecided(numbers, usual_eps))

    def controls(self, first: Controls) -> Controls:
        """Return the numbers of the controls on as many samples as decide."""
        return self.growth.grown(first, self.more_controls, controls.joined, controls.undecided)

    def more_controls(self, batch: Batch) -> Controls:
        """Return the numbers of the controls, and what gradients break, on the samples of ``batch``."""
        right = self.subjects.right(batch)
        if not len(right.y):
            return Controls(noise=(), search=(), right=(), gradients=())
        trace = attacked(right)
        soft = attacked_softly(right, trace)
        return with_right(right, broken_by(right, trace, soft))

    def hidden(self, first: Hidden) -> Hidden:
        """Return the numbers on samples that ascents leave, on as many samples as decide."""

        def measured(batch: Batch) -> Hidden:
            right = self.subjects.right(batch)
            if not len(right.y):
                return replace(first, **dict.fromkeys(hidden.SETS, ()), changes=0)
            trace = attacked(right)
            soft = attacked_softly(right, trace)
            return self.without_gradients(right, trace, soft, controls.measure(right))

        return self.growth.grown(first, measured, hidden.joined, hidden.undecided)

    def without_gradients(self, right: Subject, trace: Trace, soft: Trace, found: Controls) -> Hidden:
        """Return what breaks the samples that two ascents leave, the second on those that the first leaves."""
        left, still = right.rows(~trace.broken), ~soft.broken
        black = {*found.noise, *found.search}
        searched = torch.tensor([sample in black for sample in left.noise.samples], device=left.x.device, dtype=torch.bool)
        ends = (trace.last[~trace.broken][still], soft.last[still])
        return hidden.measure(right, left.rows(still), ends, searched[still], self.sources)


def attacked(subject: Subject) -> Trace:
    """Return the path of the evaluation's gradient attack."""
    settings = subject.settings
    return ascend(subject, settings.region, settings.steps, settings.step_size)


def with_right(right: Subject, white_box: tuple[int, ...]) -> Controls:
    """Return the numbers of the controls on samples that are right when clean, beside those that gradients break."""
    return replace(controls.measure(right), right=right.noise.samples, gradients=white_box)


def attacked_softly(right: Subject, trace: Trace) -> Trace:
    """Return the path of an ascent on the soft deployed rule, of the samples that ``trace`` leaves."""
    left, settings = right.rows(~trace.broken), right.settings
    if not len(left.y):
        return trace.rows(~trace.broken)
    return ascend(left, settings.region, settings.steps, settings.step_size, objective=SoftRule(left.policy))


def broken_by(right: Subject, trace: Trace, soft: Trace) -> tuple[int, ...]:
    """Return the dataset indices of the samples that one of two ascents breaks, the second on those that the first leaves."""
    return (*right.names(trace.broken), *right.rows(~trace.broken).names(soft.broken))

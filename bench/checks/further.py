"""The measurements of the probe on further samples, each until its own comparison is decided."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from exitbench.attacks.noise import Noise
from exitbench.attacks.settings import AttackSettings
from exitbench.checks import controls, gradients, path, radii
from exitbench.checks.growth import Growth
from exitbench.checks.subject import Subject
from exitbench.checks.trace import SoftRule, Trace, ascend
from exitbench.data.split import Batch
from exitbench.store.trust_result import AscentPath, AtRadius, Controls, Gradients, Radii
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
        return Subject(self.target.model, self.target.policy, x, y, self.noise(self.seed, batch.indices), self.settings)

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
    """

    subjects: Subjects
    growth: Growth

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
        return with_right(right, (*right.names(trace.broken), *broken_by_soft_rule(right.rows(~trace.broken))))


def attacked(subject: Subject) -> Trace:
    """Return the path of the evaluation's gradient attack."""
    settings = subject.settings
    return ascend(subject, settings.region, settings.steps, settings.step_size)


def with_right(right: Subject, white_box: tuple[int, ...]) -> Controls:
    """Return the numbers of the controls on samples that are right when clean, beside those that gradients break."""
    return replace(controls.measure(right), right=right.noise.samples, gradients=white_box)


def broken_by_soft_rule(left: Subject) -> tuple[int, ...]:
    """Return the dataset indices of the samples in ``left`` that an ascent on the soft deployed rule breaks."""
    settings = left.settings
    if not len(left.y):
        return ()
    trace = ascend(left, settings.region, settings.steps, settings.step_size, objective=SoftRule(left.policy))
    return left.names(trace.broken)

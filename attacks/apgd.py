"""Auto-PGD: projected gradient ascent with momentum and an adaptive step size, on any objective over the exits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.gradient import Ascent, ascent
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Objective, Reduction, TargetedDLR, label
from exitbench.attacks.pgd import Start, begin
from exitbench.attacks.regions import ThreatModel, column
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue

MOMENTUM = 0.75
RHO = 0.75  # share of steps in a window that must have climbed for the step size to stay


@dataclass(frozen=True)
class APGD(Attack):
    """APGD (Croce & Hein, ICML 2020, algorithm 1) on an objective, with restarts.

    The step size starts at ``2 eps``. It is halved at checkpoints where progress has stalled, and the search goes back to the
    best iterate. The candidate of a sample is the iterate with the highest objective among those that fool the exits of the
    objective (``Objective.fools``), else among all.

    Attributes:
        objective: The objective to ascend.
        region: Linf or L2 ball.
        steps: Gradient steps per restart; there is one more forward pass at the end.
        restarts: Number of independent runs; samples that are fooled already are left out of later ones.
        start: ``random``, ``clean``, or the attack whose candidate is the start.

    Raises:
        InvalidValue: If ``steps`` or ``restarts`` is below 1, or there are restarts without a random start.
    """

    version: ClassVar[int] = 2

    objective: Objective
    region: ThreatModel
    steps: int = 100
    restarts: int = 1
    start: Start | Attack = "random"

    def __post_init__(self) -> None:
        _check(self.steps, self.restarts)
        if self.start != "random" and self.restarts > 1:
            raise InvalidValue("restarts differ only by their random start")

    @property
    def children(self) -> tuple[Attack, ...]:
        return (self.start,) if isinstance(self.start, Attack) else ()

    @property
    def summary(self) -> str:
        restarts = f" x{self.restarts}" if self.restarts > 1 else ""
        return f"apgd-{self.steps}{restarts}, {label(self.objective.loss)}"

    @property
    def expected_gradients(self) -> float:
        return self.steps * self.restarts

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        best = _Best(x)
        for restart in range(self.restarts):
            rows = best.unfooled()
            start = begin(self.start, self.region, x, noise, restart, candidates)

            def look(x_adv: Tensor, rows: Tensor = rows) -> Ascent:
                return ascent(model, self.objective, x_adv, y[rows])

            best.offer(rows, *climb(look, self.region, x[rows], start[rows], self.steps))
        return best.x_adv


@dataclass(frozen=True)
class APGDTargeted(Attack):
    """Targeted APGD (Croce & Hein, ICML 2020, section 4.1), with one run towards each of the most likely wrong classes.

    The loss at every exit is the targeted DLR, reduced over the exits. The target classes are ranked on the clean image by the
    margin, reduced in the same way. Samples fooled with one target are left out of the runs that follow.

    Attributes:
        over: The reduction of the losses over the exits.
        region: Linf or L2 ball.
        steps: Gradient steps per target.
        n_targets: Largest number of targets; fewer on a network with fewer classes.
        start: ``random``, ``clean``, or the attack whose candidate is the start.

    Raises:
        InvalidValue: If ``steps`` or ``n_targets`` is below 1.
    """

    version: ClassVar[int] = 2

    over: Reduction
    region: ThreatModel
    steps: int = 100
    n_targets: int = 9
    start: Start | Attack = "random"

    def __post_init__(self) -> None:
        _check(self.steps, self.n_targets)

    @property
    def children(self) -> tuple[Attack, ...]:
        return (self.start,) if isinstance(self.start, Attack) else ()

    @property
    def summary(self) -> str:
        return f"apgd-{self.steps}, dlr towards {self.n_targets} classes"

    @property
    def least_classes(self) -> int:
        return TargetedDLR.least_classes

    @property
    def expected_gradients(self) -> float:
        return self.steps * self.n_targets / 2

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        best = _Best(x)
        with torch.no_grad():
            classes = self._ranked(model(x, upto=self.over.upto), y)
        for turn in range(min(self.n_targets, classes.shape[1])):
            rows = best.unfooled()
            objective = Objective(TargetedDLR(), self.over)

            def look(x_adv: Tensor, rows: Tensor = rows, turn: int = turn, objective: Objective = objective) -> Ascent:
                return ascent(model, objective, x_adv, y[rows], target=classes[rows, turn])

            start = begin(self.start, self.region, x, noise, turn, candidates)
            best.offer(rows, *climb(look, self.region, x[rows], start[rows], self.steps))
        return best.x_adv

    def _ranked(self, logits: Tensor, y: Tensor) -> Tensor:
        """Rank the wrong classes ``(B, C - 1)`` from nearest to farthest, by the clean logits ``(K', B, C)``."""
        true = logits.gather(-1, y.expand(len(logits), -1).unsqueeze(-1))
        margins = self.over((logits - true).flatten(1)).view(logits.shape[1:]).scatter(1, y[:, None], -torch.inf)
        return margins.argsort(dim=1, descending=True, stable=True)[:, :-1]


def climb(
    look: Callable[[Tensor], Ascent], region: ThreatModel, x: Tensor, start: Tensor, steps: int, made: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run APGD once.

    Args:
        look: Returns value, gradient and success at a point.
        region: Linf or L2 ball.
        x: Clean images ``(B, ...)``.
        start: Images to start from, inside the region.
        steps: Gradient steps that the step size is scheduled for.
        made: Number of them to make, from the first; by default all.

    Returns:
        The best iterates, their values ``(B,)``, and whether they fool the network, ``(B,)`` bool.
    """
    if not len(x):
        return x, x.new_empty(0), torch.empty(0, dtype=torch.bool, device=x.device)
    here, previous = start, start
    values, gradient, fools = look(start)
    state = _Schedule(start, values, gradient, 2 * region.eps)
    best = _Best(x)
    everybody = torch.arange(len(x), device=x.device)
    best.offer(everybody, start, values, fools)
    windows = _windows(steps)
    window = next(windows)
    since = 0
    for step in range(steps if made is None else made):
        size = column(state.size, x)
        target = region.project(here + size * region.steepest(gradient), x)
        weight = MOMENTUM if step else 1.0
        moved = region.project(here + weight * (target - here) + (1 - weight) * (here - previous), x)
        previous, here, before = here, moved, values
        values, gradient, fools = look(here)
        best.offer(everybody, here, values, fools)
        state.note(here, values, gradient, values > before)
        since += 1
        if since == window:
            stalled = state.checkpoint(window)
            here = torch.where(column(stalled, here), state.x_best, here)
            gradient = torch.where(column(stalled, here), state.gradient_best, gradient)
            values = torch.where(stalled, state.value_best, values)
            since, window = 0, next(windows)
    return best.x_adv, best.values, best.fools


class _Schedule:
    """The schedule of each sample: step size, highest point so far, and progress since the last checkpoint."""

    def __init__(self, x_adv: Tensor, values: Tensor, gradient: Tensor, size: float) -> None:
        self.x_best, self.value_best, self.gradient_best = x_adv.clone(), values.clone(), gradient.clone()
        self.size = torch.full_like(values, size)
        self.climbed = torch.zeros_like(values)
        self._value_then = values.clone()
        self._halved_then = torch.ones_like(values, dtype=torch.bool)

    def note(self, x_adv: Tensor, values: Tensor, gradient: Tensor, climbs: Tensor) -> None:
        """Record one step."""
        self.climbed += climbs
        higher = values > self.value_best
        self.x_best = torch.where(column(higher, x_adv), x_adv, self.x_best)
        self.gradient_best = torch.where(column(higher, x_adv), gradient, self.gradient_best)
        self.value_best = torch.where(higher, values, self.value_best)

    def checkpoint(self, window: int) -> Tensor:
        """Halve the step size where too few steps climbed, or where neither it nor the best value changed (conditions 1 and 2).

        Returns:
            Whether the step size of each sample was halved, ``(B,)`` bool.
        """
        stalled = self.climbed <= RHO * window
        stalled |= ~self._halved_then & (self.value_best <= self._value_then)
        self._halved_then, self._value_then = stalled, self.value_best.clone()
        self.climbed = torch.zeros_like(self.climbed)
        self.size = torch.where(stalled, self.size / 2, self.size)
        return stalled


class _Best:
    """The best iterate of each sample: one that fools is preferred, then one of a higher value."""

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        self.values = torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
        self.fools = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def unfooled(self) -> Tensor:
        """Return the rows of the samples that are not fooled yet."""
        return (~self.fools).nonzero().flatten()

    def offer(self, rows: Tensor, x_adv: Tensor, values: Tensor, fools: Tensor) -> None:
        # A NaN value is accepted at once: the runner must see it, not a clean image in its place.
        now = self.fools[rows]
        better = (fools & ~now) | ((fools == now) & ~(values <= self.values[rows]))
        self.x_adv[rows] = torch.where(column(better, x_adv), x_adv, self.x_adv[rows])
        self.values[rows] = torch.where(better, values, self.values[rows])
        self.fools[rows] = fools | now


def _windows(steps: int) -> Iterator[int]:
    """Yield the lengths of the windows between checkpoints: 0.22 of the steps, then 0.03 less each, down to 0.06 (sec. 3.1)."""
    length, shorter, shortest = (max(math.floor(share * steps), 1) for share in (0.22, 0.03, 0.06))
    while True:
        yield length
        length = max(length - shorter, shortest)


def _check(steps: int, runs: int) -> None:
    if steps < 1 or runs < 1:
        raise InvalidValue(f"need at least one step and one run, got {steps} and {runs}")

"""Takes the steps of an ascent: one by one, or on a GPU as replays of one recording of the whole step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.search_batch import Rules, SearchBatch, padded
from exitbench.models.at_once import is_without_loop
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.graphed import GraphedNet, replays_begin

SIZES = (128, 512, 1024, 2048, 4096)
"""Batch sizes of recordings; a step on fewer images takes as long, and larger ones fill a GPU without."""

WARM = 8
"""Images of a first step beside the recording, for which libraries set themselves up."""

DIFFERENCES = {"logits": 0.02, "velocity": 0.1}
"""Largest mean difference of a replay from the step itself, relative to the mean; sums on a GPU differ from run to run."""


@dataclass(eq=False)
class RecordedStep:
    """A step on tensors that stay where they are.

    Attributes:
        batch: The samples.
        numbers: The step's knob and size, ``()`` each.
        replay: Takes the step.
    """

    batch: SearchBatch
    numbers: tuple[Tensor, Tensor]
    replay: Callable[[], None]


class StepRecorder:
    """The steps of one ascent.

    Args:
        model: The network to search on; its steps are recorded if its passes are.
        rules: What the steps follow.
        batch: The samples.

    Attributes:
        batch: The samples still in it, and padding behind them in a recording.
        going: Number of samples that are not broken, as far as the host knows; their passes are counted.
    """

    def __init__(self, model: EarlyExitNet, rules: Rules, batch: SearchBatch) -> None:
        self.model, self.rules, self.batch, self.going = model, rules, batch, len(batch)
        self._spent = 0
        self._launched = batch.x.new_zeros(()), batch.x.new_zeros(())
        self._step = self._found()

    def shrinks(self, n: int) -> bool:
        """Return whether a batch of ``n`` samples, fewer than now, is quicker."""
        return self._step is None or n == 0 or _size_for(n) != len(self._step.batch)

    def take(self, rows: Tensor) -> None:
        """Go on with the samples ``rows`` ``(M,)`` of the batch alone."""
        self.batch, self.going = self.batch.rows(rows), len(rows)
        self._step = self._found()

    def step(self, counts: Sequence[int] | None, knob: float, size: float) -> None:
        """Take a step; see ``SearchBatch.step``."""
        numbers = self._launched if self._step is None else self._step.numbers
        for number, value in zip(numbers, (knob, size), strict=True):
            number.fill_(value)
        if self._step is None:
            self.batch.step(self.rules, self.model, counts, *numbers)
        else:
            replays_begin()
            self._step.replay()
            self._spent += self.going

    def count(self) -> None:
        """Count the passes of the steps taken since the last time."""
        if self._spent and isinstance(self.model, GraphedNet):
            self.model.passed(self._spent)
        self._spent = 0

    def _found(self) -> RecordedStep | None:
        """Load the samples into the recording for their number, which is made if there is none; None without recordings."""
        model, n = self.model, len(self.batch)
        if not isinstance(model, GraphedNet) or not model.records(self.batch.x) or not 0 < n <= SIZES[-1]:
            return None
        if not is_without_loop(self.rules.policy):
            return None
        shapes = tuple((name, tensor.shape[:-1]) for name, tensor in self.batch.own.items())
        whole = padded(self.batch, _size_for(n))
        key = (self.rules, shapes, whole.x.shape, whole.x.dtype, whole.x.device)
        found: RecordedStep | None = model.steps.get(key)
        if found is None:
            found = self._recorded(model, whole)
            if found is None:
                return None
            model.steps[key] = found
        found.batch.load(whole)
        self.batch = found.batch
        return found

    def _recorded(self, model: GraphedNet, whole: SearchBatch) -> RecordedStep | None:
        numbers = whole.x.new_full((), 0.1), whole.x.new_zeros(())  # a step of length 0
        rows = torch.arange(len(whole), device=whole.y.device)
        few, meant, static = whole.rows(rows[:WARM]), whole.rows(rows), whole.rows(rows)

        def taken(batch: SearchBatch) -> None:
            batch.step(self.rules, model.net, None, *numbers)

        def made() -> Callable[[], None]:
            model.recorder.beside(lambda: taken(few), whole.x.device)
            taken(meant)
            replay = model.recorder.record(lambda: taken(static), whole.x.device)
            replay()
            _check_same(static, meant)
            return replay

        replay = model.tried(made)
        return None if replay is None else RecordedStep(static, numbers, replay)


def _check_same(replayed: SearchBatch, meant: SearchBatch) -> None:
    """Check that a replay has done what the step itself does.

    Raises:
        RuntimeError: If it has not.
    """
    for name, most in DIFFERENCES.items():
        found, wanted = getattr(replayed, name), getattr(meant, name)
        if not float((found - wanted).abs().mean()) <= most * float(wanted.abs().mean()):
            raise RuntimeError(f"a replay of a step computes other {name}")


def _size_for(n: int) -> int:
    return next(size for size in SIZES if size >= n)

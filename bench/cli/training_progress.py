"""The progress display of `bench train`: a line per epoch, and a bar with the time left."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from exitbench.training.loop import EpochRecord, Trainer
from exitbench.training.recipe import Recipe


class TrainingProgress:
    """A progress display for a trainer's callbacks; the time left is estimated from the work of each epoch, as phases differ."""

    def __init__(self, console: Console, recipe: Recipe) -> None:
        self.console, self.recipe = console, recipe
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            transient=True,
            speed_estimate_period=120,
        )
        self.work: list[float] = []
        self.done_before = self.done = 0
        self.seconds = 0.0
        self.task = self.bar.add_task("loading", total=None)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()
        if isinstance(error, KeyboardInterrupt) and self.work:
            kept = f"epochs up to {self.done} are kept" if self.done else "no epoch was finished"
            self.console.print(f"stopped; {kept}: give the same command to go on", highlight=False)

    def start(self, trainer: Trainer) -> None:
        """Print what is trained, where, and from which epoch."""
        self.work = self.recipe.work(trainer.model.n_exits, trainer.images.pixels.shape[-1])
        self.done_before = self.done = len(trainer.history)
        machine = trainer.machine
        compiled = ", compiled" if machine.compiled else ""
        self._say(
            f"{self.recipe.name}: {self.recipe.epochs} epochs of {len(trainer.images)} images on {machine.device.type} in "
            f"{machine.precision}{compiled}, {trainer.recipe.batch_size} images an update"
            + (f", resumed after epoch {self.done}" if self.done else "")
        )
        self.bar.update(self.task, total=sum(self.work[self.done :]))
        self.step(0.0)

    def step(self, part: float) -> None:
        """Advance the bar to ``part`` of the current epoch."""
        if self.done >= len(self.work):
            return
        finished = sum(self.work[self.done_before : self.done]) + part * self.work[self.done]
        self.bar.update(self.task, completed=finished, description=f"epoch {self.done + 1}/{self.recipe.epochs}")

    def epoch(self, record: EpochRecord) -> None:
        """Print the results of an epoch."""
        self.done = record.epoch
        self.seconds += record.seconds
        spent, ahead = sum(self.work[self.done_before : self.done]), sum(self.work[self.done :])
        harder = self.recipe.phase(record.epoch - 1).harder
        attacked = "" if record.attacked_accuracy == 0 else f", {harder} {record.attacked_accuracy:.1%}"
        speed = f"; {record.images_per_second:,.0f} images/s"
        notes = f"; stepped down after {record.collapses} collapse(s)" if record.collapses else ""
        left = f"  [about {self.seconds / spent * ahead / 60:.0f} min left]" if ahead else ""
        self._say(
            f"epoch {record.epoch}/{self.recipe.epochs}  loss {record.loss:.3f}  "
            f"last exit: training clean {record.clean_accuracy:.1%}{attacked}; "
            f"held out clean {record.held_out_clean:.1%}, PGD-10 {record.held_out_pgd:.1%}{speed}{notes}{left}"
        )

    def tell(self, line: str) -> None:
        """Print a line about what is slower than it could be."""
        self._say(line)

    def _say(self, line: str) -> None:
        self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

"""The training loop: deterministic per epoch, and resumable after each of them."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.calibration import equal_share
from exitbench.models.gated import gate_parameters
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import FixedExit, Policy
from exitbench.models.spec import digest
from exitbench.models.whole_file import write_whole
from exitbench.training.descent import Descent
from exitbench.training.draws import CounterDraws
from exitbench.training.earlier_draws import EarlierDraws
from exitbench.training.guard import Guard, collapsed, stepped_down
from exitbench.training.images import Images, resized
from exitbench.training.loss import cost_shares
from exitbench.training.machine import Machine
from exitbench.training.prune import Pruner
from exitbench.training.recipe import Recipe
from exitbench.training.replay import Replay, Tell
from exitbench.training.update import Plan, Updater

CPU = Machine(torch.device("cpu"))
PATIENCE = 3
"""Number of collapses of one epoch after which training is given up."""
CHECK_EVERY = 50
"""Number of updates on a GPU after which the loss is read, to see whether it is finite; on a CPU it is after each."""


class Diverged(UserError):
    """Training cannot go on: the loss is not finite, or an epoch keeps collapsing; the last good epoch stays saved."""


@dataclass(frozen=True)
class EpochRecord:
    """The log of an epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean training loss, summed over the exits.
        clean_accuracy, attacked_accuracy: Accuracy of the last exit on training images, during the epoch, in [0, 1]. In training
            on bounds the second is the share that is right in the whole ball of the radius trained on.
        held_out_clean, held_out_pgd: Accuracy of the last exit on the first held-out images, after the epoch, in [0, 1].
        collapses: Number of times that training was restored and stepped down before this epoch succeeded.
        seconds: Wall-clock time.
        images_per_second: Training images in a second of the updates, without the measurements around them; 0 if not known.
    """

    epoch: int
    loss: float
    clean_accuracy: float
    attacked_accuracy: float
    held_out_clean: float
    held_out_pgd: float
    collapses: int
    seconds: float
    images_per_second: float = 0.0


class Trainer:
    """A training run that trains ``model`` in place by ``recipe`` and updates ``resume_file`` after every epoch.

    Order and dropout are seeded by (seed, epoch), all other random numbers by (seed, epoch, image), so that a run that was killed
    and resumed gives the weights of an uninterrupted run.

    Args:
        model: The network, with fresh weights or those to start from.
        recipe: The recipe to train by.
        train: Training images.
        held_out: Images for the guard and for the thresholds of the deployed rule.
        seed: Seed of all random numbers.
        resume_file: File written after every epoch, and read at the start if it exists.
        machine: The device and precision to train with.
        on_step: Called after every update with the share of its epoch that is done, in (0, 1]; on a GPU the work may come later.
        tell: Called with the reason where a GPU cannot replay the updates.

    Raises:
        UserError: If ``resume_file`` belongs to another recipe or seed, or is not readable.
    """

    def __init__(
        self,
        model: MultiExitNet,
        recipe: Recipe,
        train: Split,
        held_out: Split,
        seed: int,
        resume_file: Path,
        machine: Machine = CPU,
        on_step: Callable[[float], None] = lambda _: None,
        tell: Tell = lambda _: None,
    ) -> None:
        self.model = machine.prepare(model)
        self.recipe, self.seed, self.resume_file, self.machine, self.on_step = recipe, seed, resume_file, machine, on_step
        self.images, self.held_out = Images(train, machine.device), Images(held_out, machine.device)
        self.guard = Guard(self.held_out, recipe.ball)
        steps_per_epoch = math.ceil(len(train) / recipe.batch_size)
        self.descent = Descent(
            gate_parameters(model) if recipe.trained == "gates" else model.parameters(), recipe, recipe.epochs * steps_per_epoch
        )
        shares = cost_shares(model, train.shape).to(machine.device) if recipe.exit_weights == "sdn" else None
        self.update = Updater(self.model, self.images, recipe, machine, self.descent, shares)
        self.replay = Replay(machine.device, machine.graphs, tell)
        self.pruner = Pruner(self.model, recipe.pruning, steps_per_epoch)
        self.history: list[EpochRecord] = []
        self.collapses = 0
        self._counts = True
        self._identity = digest({"recipe": recipe.summary(), "seed": seed})
        if resume_file.exists():
            self._resume()

    def epochs(self) -> Iterator[EpochRecord]:
        """Train the epochs that are left, one per iteration; a collapsed one is undone and repeated with more, shorter steps.

        Raises:
            Diverged: If the loss becomes NaN or infinite, or an epoch collapses ``PATIENCE`` times.
            UserError: If ``resume_file`` cannot be written.
        """
        for epoch in range(len(self.history), self.recipe.epochs):
            record = self._surviving_epoch(epoch)
            self.history.append(record)
            self._save()
            yield record

    def _surviving_epoch(self, epoch: int) -> EpochRecord:
        good = io.BytesIO()
        torch.save(self._state(), good)
        earlier = [record.held_out_pgd for record in self.history[self.recipe.phase_start(epoch) :]]
        for _ in range(PATIENCE):
            record = self._epoch(epoch)
            if self.recipe.phase(epoch).crafting is None or not collapsed(record.held_out_pgd, earlier):
                return record
            good.seek(0)
            self._restore(torch.load(good, weights_only=True))
            self.collapses += 1
        raise Diverged(
            f"epoch {epoch + 1} of {self.recipe.name} collapsed {PATIENCE} times: accuracy under PGD fell from "
            f"{max(earlier):.1%} to {record.held_out_pgd:.1%} however the attack was stepped down; "
            f"the weights after epoch {epoch} are kept in {self.resume_file}"
        )

    def _epoch(self, epoch: int) -> EpochRecord:
        began = time.monotonic()
        phase = self.recipe.phase(epoch)
        crafting = stepped_down(phase.crafting, self.collapses) if phase.crafting else None
        plan = Plan(phase, crafting, self._policy(phase.image_size) if phase.needs_policy else None)
        updates_began = time.monotonic()
        sums = self._updates(epoch, plan)
        updates_took = time.monotonic() - updates_began
        loss, clean_right, n_clean, attacked_right, n_attacked = sums
        held_out_clean, held_out_pgd = self.guard.measure(self.model, phase.image_size)
        return EpochRecord(
            epoch + 1,
            loss / len(self.images),
            clean_right / max(n_clean, 1),
            attacked_right / max(n_attacked, 1),
            held_out_clean,
            held_out_pgd,
            self.collapses,
            time.monotonic() - began,
            len(self.images) / updates_took,
        )

    def _updates(self, epoch: int, plan: Plan) -> list[float]:
        """Make the updates of an epoch, and return their tally."""
        seed = self.seed * 100_003 + epoch
        torch.manual_seed(seed)
        order = torch.randperm(len(self.images)).to(self.machine.device)
        earlier = None if self._counts else torch.Generator().manual_seed(seed)
        self.update.tally.zero_()
        batches = torch.split(epoch * len(self.images) + order, self.recipe.batch_size)
        every = 1 if self.machine.device.type == "cpu" else CHECK_EVERY

        def work(shown: Tensor) -> None:
            rows = shown % len(self.images)
            draws = EarlierDraws(earlier, seed, rows) if earlier else CounterDraws(self.seed, shown)
            self.update(rows, draws, plan)

        for step, shown in enumerate(batches, start=1):
            self.replay(plan, work, shown)
            self.descent.made += 1
            self.pruner.after(self.descent.made)
            if step % every == 0 or step == len(batches):
                self._check(float(self.update.tally[0]), step, epoch)
            self.on_step(step / len(batches))
        sums: list[float] = self.update.tally.tolist()
        return sums

    def _check(self, loss: float, step: int, epoch: int) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in step {step} of epoch {epoch + 1} of {self.recipe.name}; "
                + (f"the weights after epoch {epoch} are kept in {self.resume_file}" if epoch else "nothing was saved")
            )

    @torch.no_grad()
    def _policy(self, image_size: int | None) -> Policy:
        """Return the policy that would be deployed now: equal shares on the held-out images, as for shipped weights."""
        if self.model.n_exits == 1:
            return FixedExit(1)
        self.model.eval()
        batches = torch.split(torch.arange(len(self.held_out)), 200)
        logits = [self.model(resized(self.held_out.batch(rows)[0], image_size)).cpu() for rows in batches]
        return equal_share(torch.cat(logits, dim=1))

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "model": self.model.state_dict(),
            **self.descent.state(),
            "removed": self.pruner.removed,
            "history": [vars(record) for record in self.history],
            "collapses": self.collapses,
            "counts": self._counts,
        }

    def _save(self) -> None:
        buffer = io.BytesIO()
        torch.save(self._state(), buffer)
        try:
            write_whole(self.resume_file, buffer.getvalue())
        except OSError as error:
            saved = f"what is saved is epoch {len(self.history) - 1}" if len(self.history) > 1 else "no epoch is saved yet"
            raise UserError(f"cannot write {self.resume_file} ({error}); {saved}: make room and give the same command") from error

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.descent.restore(state)
        self.pruner.restore(state.get("removed", {}))  # resume files older than pruning have none

    def _resume(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.resume_file, map_location="cpu", weights_only=True)
            if state["identity"] != self._identity:
                raise UserError(
                    f"{self.resume_file} is of another recipe or seed, or of another batch size; move it away to start afresh"
                )
            self._restore(state)
            self.history = [EpochRecord(**record) for record in state["history"]]
            self.collapses = state["collapses"]
            self._counts = state.get("counts", False)  # a training begun with other random numbers keeps to them
            self.replay.on &= self._counts
        except UserError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise UserError(f"{self.resume_file} is not readable ({error}); delete it to start afresh") from error

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

from exitbench.attacks.noise import Noise
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.calibration import equal_share
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import FixedExit, Policy
from exitbench.models.spec import digest
from exitbench.models.whole_file import write_whole
from exitbench.training.craft import craft
from exitbench.training.guard import Guard, collapsed, stepped_down
from exitbench.training.images import Images, augmented, resized
from exitbench.training.loss import cost_shares, growing_weights, training_loss
from exitbench.training.machine import Machine
from exitbench.training.prune import Pruner
from exitbench.training.recipe import Crafting, Phase, Recipe

CPU = Machine(torch.device("cpu"))
PATIENCE = 3
"""Number of collapses of one epoch after which training is given up."""


class Diverged(UserError):
    """Training cannot go on: the loss is not finite, or an epoch keeps collapsing; the last good epoch stays saved."""


@dataclass(frozen=True)
class EpochRecord:
    """The log of an epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean training loss, summed over the exits.
        clean_accuracy, attacked_accuracy: Accuracy of the last exit on training images, during the epoch, in [0, 1].
        held_out_clean, held_out_pgd: Accuracy of the last exit on the first held-out images, after the epoch, in [0, 1].
        collapses: Number of times that training was restored and stepped down before this epoch succeeded.
        seconds: Wall-clock time.
    """

    epoch: int
    loss: float
    clean_accuracy: float
    attacked_accuracy: float
    held_out_clean: float
    held_out_pgd: float
    collapses: int
    seconds: float


class Trainer:
    """A training run that trains ``model`` in place by ``recipe`` and updates ``resume_file`` after every epoch.

    Random numbers (order, augmentation, noise, dropout) are seeded by (seed, epoch), so that a run that was killed and resumed
    gives the weights of an uninterrupted run.

    Args:
        model: The network, with fresh weights or those to start from.
        recipe: The recipe to train by.
        train: Training images.
        held_out: Images for the guard and for the thresholds of the deployed rule.
        seed: Seed of all random numbers.
        resume_file: File written after every epoch, and read at the start if it exists.
        machine: The device and precision to train with.
        on_step: Called after every update with the share of its epoch that is done, in (0, 1].

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
    ) -> None:
        self.model = machine.prepare(model)
        self.recipe, self.seed, self.resume_file, self.machine, self.on_step = recipe, seed, resume_file, machine, on_step
        self.images, self.held_out = Images(train, machine.device), Images(held_out, machine.device)
        self.guard = Guard(self.held_out, recipe.ball)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.peak_lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        steps_per_epoch = math.ceil(len(train) / recipe.batch_size)
        self._n_steps = recipe.epochs * steps_per_epoch
        self.schedule = _schedule(self.optimizer, recipe, self._n_steps)
        self._shares = cost_shares(model, train.shape).to(machine.device) if recipe.exit_weights == "sdn" else None
        self.pruner = Pruner(self.model, recipe.pruning, steps_per_epoch)
        self.history: list[EpochRecord] = []
        self.collapses = 0
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
        policy = self._policy(phase.image_size) if phase.needs_policy else None
        noise_seed = self.seed * 100_003 + epoch
        torch.manual_seed(noise_seed)
        order = torch.randperm(len(self.images))
        draws = torch.Generator().manual_seed(noise_seed)
        sums = torch.zeros(5, dtype=torch.float64)
        batches = torch.split(order, self.recipe.batch_size)
        for step, rows in enumerate(batches, start=1):
            x, y = self.images.batch(rows)
            x = resized(augmented(x, draws, self.recipe.crop_padding, self.recipe.flip), phase.image_size)
            noise = Noise(noise_seed, tuple(rows.tolist()))
            sums += self._step(x, y, phase, crafting, noise, policy, draws)
            if not math.isfinite(sums[0]):
                raise Diverged(
                    f"the loss became {float(sums[0])} in step {step} of epoch {epoch + 1} of {self.recipe.name}; "
                    + (f"the weights after epoch {epoch} are kept in {self.resume_file}" if epoch else "nothing was saved")
                )
            self.on_step(step / len(batches))
        loss, clean_right, n_clean, attacked_right, n_attacked = sums.tolist()
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
        )

    def _step(
        self,
        x: Tensor,
        y: Tensor,
        phase: Phase,
        crafting: Crafting | None,
        noise: Noise,
        policy: Policy | None,
        draws: torch.Generator,
    ) -> Tensor:
        """Make one update, and return summed loss, clean right, clean seen, attacked right, attacked seen."""
        if crafting is None:
            attacked = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        elif phase.attacked_share is None:
            attacked = torch.ones(len(y), dtype=torch.bool, device=y.device)
        else:
            attacked = (torch.rand(len(y), generator=draws) < phase.attacked_share).to(y.device)
        inputs = x
        if crafting is not None and attacked.any():
            self.model.eval()
            self.model.requires_grad_(False)
            inputs = x.clone(memory_format=torch.channels_last)
            with self.machine.autocast():
                inputs[attacked] = craft(
                    self.model, x[attacked], y[attacked], crafting, self.recipe.ball, noise.of(attacked.nonzero()[:, 0]), policy
                )
            self.model.requires_grad_(True)
        self.model.train()
        tally = torch.zeros(5, dtype=torch.float64)
        weights = None if self._shares is None else growing_weights(self._shares, self.schedule.last_epoch / self._n_steps)
        if crafting is not None and phase.attacked_share is None:
            clean_logits, logits = self._logits(x), self._logits(inputs)
            loss = training_loss(clean_logits, y, phase, policy, weights) + training_loss(logits, y, phase, policy, weights)
            if phase.distillation:
                loss = loss + phase.distillation.loss(clean_logits, logits, y, draws)
            loss = loss / 2
            tally[1:3] += torch.tensor([_right(clean_logits, y).sum(), len(y)])
        else:
            logits = self._logits(inputs)
            loss = training_loss(logits, y, phase, policy, weights)
        right = _right(logits, y)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        self.pruner.after(self.schedule.last_epoch)  # torch's name for its number of steps
        tally[0] = loss.item() * len(y)
        tally[1:] += torch.tensor([right[~attacked].sum(), (~attacked).sum(), right[attacked].sum(), attacked.sum()])
        return tally

    def _logits(self, x: Tensor) -> Tensor:
        with self.machine.autocast():
            logits: Tensor = self.model(x)
        return logits.float()

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
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "removed": self.pruner.removed,
            "history": [vars(record) for record in self.history],
            "collapses": self.collapses,
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
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.pruner.restore(state.get("removed", {}))  # resume files older than pruning have none

    def _resume(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.resume_file, map_location="cpu", weights_only=True)
            if state["identity"] != self._identity:
                raise UserError(f"{self.resume_file} is of another recipe or seed; move it away to start afresh")
            self._restore(state)
            self.history = [EpochRecord(**record) for record in state["history"]]
            self.collapses = state["collapses"]
        except UserError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise UserError(f"{self.resume_file} is not readable ({error}); delete it to start afresh") from error


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, n_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_lr, total_steps=n_steps)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [n_steps // 2, n_steps * 3 // 4])


def _right(logits: Tensor, y: Tensor) -> Tensor:
    """Return whether the last exit is right, ``(B,)``."""
    return logits[-1].argmax(-1) == y

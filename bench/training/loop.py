"""The training loop: one epoch at a time, deterministic per epoch, resumable after any of them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks.noise import Noise
from attacks.objectives import CE
from bench.data.split import Split
from bench.errors import UserError
from bench.training.recipe import Recipe
from models.multi_exit import MultiExitNet
from models.spec import digest
from models.whole_file import write_whole


class Diverged(UserError):
    """The loss is no longer a number; nothing is saved over the last good epoch."""


@dataclass(frozen=True)
class EpochRecord:
    """What is logged of an epoch: mean training loss and accuracy of the last exit on clean and attacked inputs."""

    epoch: int
    loss: float
    clean_accuracy: float
    attacked_accuracy: float


class Trainer:
    """Trains ``model`` in place by ``recipe``, keeping ``resume_file`` current after every epoch.

    Randomness (order, noise, dropout) is drawn from (seed, epoch), so that a run resumed after a
    kill makes the weights of an unbroken run.

    Raises:
        UserError: if ``resume_file`` belongs to another recipe or seed, or is not readable.
    """

    def __init__(self, model: MultiExitNet, recipe: Recipe, train: Split, seed: int, resume_file: Path) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.recipe, self.train, self.seed, self.resume_file = recipe, train, seed, resume_file
        self.attack = recipe.attack(model.n_exits)
        self.steps_per_epoch = math.ceil(len(train) / recipe.batch_size)
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=recipe.peak_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.peak_lr, total_steps=recipe.epochs * self.steps_per_epoch
        )
        self.history: list[EpochRecord] = []
        self._identity = digest({"recipe": recipe, "seed": seed})
        if resume_file.exists():
            self._resume()

    def epochs(self) -> Iterator[EpochRecord]:
        """Train the epochs that are left, one per iteration.

        Raises:
            Diverged: the loss became NaN or infinite.
        """
        for epoch in range(len(self.history), self.recipe.epochs):
            record = self._epoch(epoch)
            self.history.append(record)
            self._save()
            yield record

    def _epoch(self, epoch: int) -> EpochRecord:
        noise_seed = self.seed * 100_003 + epoch
        torch.manual_seed(noise_seed)
        order = torch.randperm(len(self.train))
        everything = self.train.batch(0, len(self.train))
        total_loss = clean = attacked = 0.0
        for rows in torch.split(order, self.recipe.batch_size):
            x, y = everything.x[rows], everything.y[rows]
            x_adv = self._attacked(x, y, Noise(noise_seed, tuple(rows.tolist())))
            loss, clean_right, attacked_right = self._step(x, x_adv, y)
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss became {loss} in epoch {epoch + 1} of {self.recipe.name}; "
                    + (f"the weights after epoch {epoch} are kept in {self.resume_file}" if epoch else "nothing was saved")
                )
            total_loss += loss * len(rows)
            clean += clean_right
            attacked += attacked_right
        n = len(self.train)
        return EpochRecord(epoch + 1, total_loss / n, clean / n, attacked / n)

    def _attacked(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor | None:
        if self.attack is None:
            return None
        self.model.eval()
        self.model.requires_grad_(False)
        x_adv = self.attack(self.model, x, y, noise=noise)
        self.model.requires_grad_(True)
        return x_adv

    def _step(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> tuple[float, float, float]:
        self.model.train()
        ce = CE()
        logits = self.model(x)
        loss = ce(logits, y).mean(1).sum()
        right = _right(logits, y)
        attacked_right = right
        if x_adv is not None:
            attacked_logits = self.model(x_adv)
            loss = (loss + ce(attacked_logits, y).mean(1).sum()) / 2
            attacked_right = _right(attacked_logits, y)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        return loss.item(), right, attacked_right

    def _save(self) -> None:
        state = {
            "identity": self._identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": [vars(record) for record in self.history],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(self.resume_file, buffer.getvalue())

    def _resume(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.resume_file, weights_only=True)
            if state["identity"] != self._identity:
                raise UserError(f"{self.resume_file} is of another recipe or seed; move it away to start afresh")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.history = [EpochRecord(**record) for record in state["history"]]
        except UserError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise UserError(f"{self.resume_file} is not readable ({error}); delete it to start afresh") from error


def _right(logits: Tensor, y: Tensor) -> float:
    return float((logits[-1].argmax(-1) == y).sum())

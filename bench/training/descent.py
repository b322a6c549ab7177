"""Stochastic gradient descent on a schedule that is worked out beforehand and stays on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exitbench.training.recipe import Recipe

WARM_UP = 5
"""Epochs over which the learning rate rises to the highest in the schedule ``steps``, where it does not start there."""

_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8
"""Adam's usual settings (Kingma & Ba, 2015)."""


class Descent:
    """SGD or Adam by a recipe, of which nothing is decided on the host: a step can be captured as a CUDA graph and replayed.

    The arithmetic is that of ``torch.optim.SGD`` and ``torch.optim.Adam``; the states of the former are interchangeable with it.

    Args:
        parameters: The parameters, on their device.
        recipe: The recipe, with its learning rate and schedule.
        n_steps: Number of steps of the whole training.

    Attributes:
        optimizer: Holds the momentum, or the moments, of each parameter.
        made: Number of steps made.
        progress: The same on the device, ``()`` int64.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], recipe: Recipe, n_steps: int) -> None:
        self.parameters = list(parameters)
        self.recipe, self.n_steps, self.made = recipe, n_steps, 0
        first = self.parameters[0]
        rates, momenta = _scheduled(recipe, n_steps)
        self._rates = torch.tensor(rates, dtype=torch.float64, device=first.device)
        self._momenta = torch.tensor(momenta, dtype=torch.float64, device=first.device)
        self.progress = torch.zeros((), dtype=torch.int64, device=first.device)
        self.optimizer = _sgd(self.parameters, recipe)
        self._fill()

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Take the next step of the schedule; a parameter without a gradient stays. The caller counts it in ``made``."""
        pairs = [(p, g) for p, g in zip(self.parameters, gradients, strict=True) if g is not None]
        parameters, slopes = [p.data for p, _ in pairs], [g for _, g in pairs]
        if self.recipe.clip is not None:
            slopes = _shortened(slopes, self.recipe.clip)
        # Indices of one element, not ``[progress]``: that would read the number on the host.
        at = self.progress.reshape(1)
        rate, momentum = (table.index_select(0, at)[0].to(parameters[0].dtype) for table in (self._rates, self._momenta))
        directions = list(torch._foreach_add(slopes, parameters, alpha=self.recipe.weight_decay))
        states = [self.optimizer.state[p] for p, _ in pairs]
        taken = self._adam(directions, states) if self.recipe.optimizer == "adam" else self._sgd(directions, states, momentum)
        torch._foreach_sub_(parameters, torch._foreach_mul(taken, rate))
        self.progress.add_(1)

    def _sgd(self, directions: list[Tensor], states: Sequence[Mapping[str, Tensor]], momentum: Tensor) -> list[Tensor]:
        momenta = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(momenta, momentum)
        torch._foreach_add_(momenta, directions)
        if self.recipe.nesterov:
            torch._foreach_add_(directions, torch._foreach_mul(momenta, momentum))
        return directions if self.recipe.nesterov else momenta

    def _adam(self, directions: list[Tensor], states: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        first, second = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(first, directions, 1 - _BETAS[0])
        torch._foreach_mul_(second, _BETAS[1])
        torch._foreach_addcmul_(second, directions, directions, 1 - _BETAS[1])
        made = (self.progress + 1).double()
        shrunk = [(1 - beta**made).to(directions[0].dtype) for beta in _BETAS]
        roots = torch._foreach_sqrt(torch._foreach_div(second, shrunk[1]))
        torch._foreach_add_(roots, _ADAM_EPS)
        return list(torch._foreach_div(torch._foreach_div(first, shrunk[0]), roots))

    def state(self) -> dict[str, Any]:
        """Return what a resume file keeps."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": {"last_epoch": self.made}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what ``state`` returned, in place: captured graphs stay valid."""
        held = {parameter: dict(self.optimizer.state[parameter]) for parameter in self.parameters}
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, tensors in held.items():
            loaded = self.optimizer.state[parameter]
            for name, tensor in tensors.items():
                value = loaded.get(name)
                tensor.copy_(torch.zeros_like(tensor) if value is None else value)
            self.optimizer.state[parameter] = tensors
        self.made = state["schedule"]["last_epoch"]  # torch's name for the number of steps
        self.progress.fill_(self.made)

    def _fill(self) -> None:
        names = ("exp_avg", "exp_avg_sq") if self.recipe.optimizer == "adam" else ("momentum_buffer",)
        for parameter in self.parameters:
            self.optimizer.state[parameter] = {name: torch.zeros_like(parameter.data) for name in names}


def _shortened(slopes: list[Tensor], longest: float) -> list[Tensor]:
    """Return gradients whose norm, over all of them, is at most ``longest``."""
    norm = torch.stack(torch._foreach_norm(slopes)).norm()
    return list(torch._foreach_mul(slopes, (longest / (norm + 1e-6)).clamp_max(1)))


def _sgd(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.SGD:
    return torch.optim.SGD(
        parameters,
        lr=recipe.peak_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def _scheduled(recipe: Recipe, n_steps: int) -> tuple[list[float], list[float]]:
    """Return the learning rate and the momentum of every step, as torch's schedules give them."""
    optimizer = _sgd([nn.Parameter(torch.zeros(1))], recipe)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if recipe.schedule == "one_cycle":
        growth = recipe.peak_lr / recipe.starts_at
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_lr, total_steps=n_steps, div_factor=growth)
    elif recipe.schedule == "plateau":
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: plateau(step / n_steps))
    else:
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [n_steps // 2, n_steps * 3 // 4])
    warm_up = 0 if recipe.schedule != "steps" else n_steps * WARM_UP // recipe.epochs
    rates, momenta = [], []
    for step in range(n_steps):
        short = (recipe.peak_lr - recipe.starts_at) * max(0.0, 1 - step / warm_up) if warm_up else 0.0
        rates.append(float(optimizer.param_groups[0]["lr"]) - short)
        momenta.append(float(optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.step()
    return rates, momenta


def plateau(progress: float) -> float:
    """Return the learning rate as a share of the peak: up over 5 % of all steps, constant to 70 %, then a cosine down to zero."""
    if progress < 0.7:
        return min(1.0, 0.01 + progress / 0.05)
    return (1 + math.cos(math.pi * (progress - 0.7) / 0.3)) / 2

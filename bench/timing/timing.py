"""Timing side by side: what several ways to do the same cost on this machine, whatever else it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from exitbench.models.early_exit import EarlyExitNet

Name = TypeVar("Name")
Result = TypeVar("Result")

ROUNDS, ROUNDS_S = 5, 1.5
"""Timings of each step at most, and the seconds after which no further round begins."""


def in_turn(steps: Mapping[Name, Callable[[], float]], rounds: int = ROUNDS) -> dict[Name, list[float]]:
    """Seconds of each step, one round after another until there are ``rounds``, or two and ``ROUNDS_S`` have passed."""
    took: dict[Name, list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    for done in range(rounds):
        if done >= 2 and time.perf_counter() - began > ROUNDS_S:
            break
        for name, step in steps.items():
            took[name].append(step())
    return took


def seconds(step: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """How long a step takes and what it returns: processor time, which other programs do not lengthen; a GPU's by the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    result = step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began, result


def forward_and_gradient(model: EarlyExitNet, x: Tensor) -> Tensor:
    """The input gradient through all exits: what one step of an attack costs."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model(x).logsumexp(-1).sum(), x)
    return gradient

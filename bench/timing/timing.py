"""Timing of alternatives side by side, robust against other load on the machine."""

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
"""Largest number of rounds, and the seconds after which no further round begins."""


def in_turn(steps: Mapping[Name, Callable[[], float]], rounds: int = ROUNDS) -> dict[Name, list[float]]:
    """Time each step in turn for ``rounds`` rounds; after two, no new round begins once ``ROUNDS_S`` have passed.

    Returns:
        The seconds of each round, by step.
    """
    took: dict[Name, list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    for done in range(rounds):
        if done >= 2 and time.perf_counter() - began > ROUNDS_S:
            break
        for name, step in steps.items():
            took[name].append(step())
    return took


def seconds(step: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Time a step, and return the seconds and its result: processor time on a CPU, wall-clock time on a GPU.

    Other programs do not lengthen processor time.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    result = step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began, result


def forward_and_gradient(model: EarlyExitNet, x: Tensor) -> Tensor:
    """Compute the input gradient through all exits, the cost of one step of an attack."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model(x).logsumexp(-1).sum(), x)
    return gradient

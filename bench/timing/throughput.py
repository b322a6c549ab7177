"""Measures how long passes through a network take on this machine, per image; on a CPU, on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from exitbench.attacks.gradient import value_and_gradient
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.models.early_exit import EarlyExitNet

BATCH = {"cpu": 32, "cuda": 512}
ROUNDS = 5
_OBJECTIVE = Objective(CE(), Mean())


@dataclass(frozen=True)
class Throughput:
    """The seconds per image of a forward pass through all exits, and of a gradient (forward and backward pass)."""

    forward_s: float
    gradient_s: float

    def seconds(self, forwards: float, backwards: float) -> float:
        """Return the seconds that these passes take; every backward pass has one of the forward passes before it."""
        return max(forwards - backwards, 0.0) * self.forward_s + backwards * self.gradient_s


def measure_throughput(model: EarlyExitNet, shape: tuple[int, int, int]) -> Throughput:
    """Time some passes of images ``(C, H, W)``: processor time of one thread on a CPU, wall-clock time on a GPU."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH[device.type], *shape, generator=generator).to(device)
    y = torch.zeros(len(x), dtype=torch.long, device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            forward = _median_s(lambda: model(x), device)
        gradient = _median_s(lambda: value_and_gradient(model, _OBJECTIVE, x, y), device)
    finally:
        torch.set_num_threads(threads)
    return Throughput(forward / len(x), gradient / len(x))


def _median_s(step: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    took = []
    for _ in range(ROUNDS + 1):
        began = clock()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(clock() - began)
    return statistics.median(took[1:])  # the first one warms up

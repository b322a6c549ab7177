"""Chooses how many slices run as one batch: on a GPU as many as fit, since 32 images leave it idle; on a CPU one or a few."""

from __future__ import annotations

from collections.abc import Callable

import torch

from exitbench.models.early_exit import EarlyExitNet
from exitbench.store.cell import SLICE
from exitbench.timing.timing import forward_and_gradient

MOST = 64
"""Largest number of slices per batch: 2,048 images saturate any GPU on networks of this size."""

GATHERED = 4
"""Slices per batch, on any device, for attacks that gain by it (``Attack.gathers``): the samples left of four slices suffice for
full speed on a CPU, and a killed run loses no more than these."""

SHARE = 0.5
"""Share of the free memory that a batch may fill; attacks keep copies of their images beside the network's activations."""


def stack_size(model: EarlyExitNet, shape: tuple[int, int, int], device: torch.device) -> int:
    """Return the number of slices to run as one batch on ``device``, for images of ``shape`` ``(C, H, W)``."""
    if device.type != "cuda":
        return 1
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    forward_and_gradient(model, torch.zeros(SLICE, *shape, device=device))
    free, _ = torch.cuda.mem_get_info(device)
    return fitting(free, torch.cuda.max_memory_allocated(device) - before)


def cells_ahead(stack: int, device: torch.device) -> int:
    """Return how many cells may wait to be written while others are computed, for batches of ``stack`` slices on ``device``.

    On a GPU it is those of two batches, so that it never waits; on a CPU none, where cells take much longer to compute than to
    write, and a killed run should lose no more than the slice in flight.
    """
    return 2 * stack if device.type == "cuda" else 0


def queue_done(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until ``device`` has done what it was given until now, whatever it is given later."""
    if device.type != "cuda":
        return lambda: None
    event: torch.cuda.Event = torch.cuda.current_stream(device).record_event()
    return event.synchronize


def fitting(free: int, per_slice: int) -> int:
    """Return the number of slices that fill ``SHARE`` of ``free`` bytes at ``per_slice`` bytes each, from 1 to ``MOST``."""
    return max(1, min(MOST, int(SHARE * free / max(per_slice, 1))))

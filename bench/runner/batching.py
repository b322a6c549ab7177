"""How many slices run as one batch: on a GPU as many as fit, for slices of 32 leave it idle; on a CPU one, or a few."""

from __future__ import annotations

import torch

from exitbench.models.early_exit import EarlyExitNet
from exitbench.store.cell import SLICE
from exitbench.timing.timing import forward_and_gradient

MOST = 64
"""Slices: 2,048 images saturate any GPU on networks of this size."""

GATHERED = 4
"""Slices on any device for attacks that gain by it (``Attack.gathers``): the dozens of samples left of them are a batch as quick
as any on a CPU, and a run that is killed loses no more than these."""

SHARE = 0.5
"""Of the free memory that a stack may fill; attacks hold several copies of their images beside the network's activations."""


def stack_size(model: EarlyExitNet, shape: tuple[int, int, int], device: torch.device) -> int:
    """Slices to run at once on ``device``: images ``(C, H, W)`` of ``shape``."""
    if device.type != "cuda":
        return 1
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    forward_and_gradient(model, torch.zeros(SLICE, *shape, device=device))
    free, _ = torch.cuda.mem_get_info(device)
    return fitting(free, torch.cuda.max_memory_allocated(device) - before)


def fitting(free: int, per_slice: int) -> int:
    """Slices that fill ``SHARE`` of ``free`` bytes at ``per_slice`` bytes each, at least one and at most ``MOST``."""
    return max(1, min(MOST, int(SHARE * free / max(per_slice, 1))))

"""The passes of a network at one batch size, recorded as CUDA graphs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from exitbench.models.early_exit import EarlyExitNet

DIFFERENCE = 1e-2
"""Largest difference of a replay from the pass itself, relative to the largest logit; kernels may differ in their rounding."""


class CudaPasses:
    """A forward and a backward pass through the first exits of a network, as two CUDA graphs that share all graphs' memory.

    The tensors that a replay reads and writes are those of ``exitbench.models.graphed.StaticPasses``. They are overwritten by
    the next replay, of any recording: read them at once.

    Args:
        net: The network, in evaluation mode.
        x: Images ``(S, C, H, W)`` on the GPU, to record with.
        last: Last exit, 0-based.

    Raises:
        RuntimeError: If the passes cannot be recorded, or a replay computes something else.
    """

    def __init__(self, net: EarlyExitNet, x: Tensor, last: int) -> None:
        self.x = x.detach().clone().requires_grad_()
        stream, before = _stream(x.device), torch.cuda.current_stream(x.device)
        stream.wait_stream(before)
        with torch.cuda.stream(stream), torch.enable_grad():  # libraries choose and load their kernels before the recording
            wanted = net(self.x, last)
            self.gradient = torch.ones_like(wanted)
            torch.autograd.grad(wanted, self.x, self.gradient)
            wanted = wanted.detach()
        with torch.enable_grad():
            with _recorded(stream) as self._forward:
                logits = net(self.x, last)
            with _recorded(stream) as self._backward:
                (self.of_images,) = torch.autograd.grad(logits, self.x, self.gradient)
        self.logits = logits.detach()
        before.wait_stream(stream)
        self.forward()
        if not float((self.logits - wanted).abs().max()) <= DIFFERENCE * float(wanted.abs().max()):
            raise RuntimeError("a replay computes other logits")

    def forward(self) -> None:
        """Compute ``logits`` from ``x``."""
        self._forward.replay()

    def backward(self) -> None:
        """Compute ``of_images`` from ``gradient``, at the images of the last ``forward``."""
        self._backward.replay()


@contextmanager
def _recorded(stream: torch.cuda.Stream) -> Iterator[torch.cuda.CUDAGraph]:
    """Record what is launched within the context; nothing is computed yet.

    Unlike ``torch.cuda.graph``, it leaves torch's cache of memory as it is: giving that back takes longer than the recording.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(stream.device)
    collects = gc.isenabled()
    gc.disable()  # what it frees may call the device
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=_pool(), capture_error_mode="thread_local")
            try:
                yield graph
            finally:
                graph.capture_end()
    finally:
        if collects:
            gc.enable()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch leaves it untyped


@cache
def _pool() -> Any:
    """Return the memory that all recordings share.

    A recording that is never dropped keeps it: torch forgets the memory with the last recording that uses it.
    """
    handle = torch.cuda.graph_pool_handle()
    stream = _stream(torch.device("cuda", torch.cuda.current_device()))
    keeper = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        keeper.capture_begin(pool=handle, capture_error_mode="thread_local")
        torch.zeros(1, device=stream.device)
        keeper.capture_end()
    _KEPT.append(keeper)
    return handle


_KEPT: list[torch.cuda.CUDAGraph] = []

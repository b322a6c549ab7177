"""The passes of a network at one batch size, recorded as CUDA graphs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from exitbench.models.early_exit import EarlyExitNet

DIFFERENCE = 1e-2
"""Largest difference of a replay from the pass itself, relative to the largest logit; kernels may differ in their rounding."""

WARM = 8
"""Images of the first passes on the stream of recordings."""


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
        self._pool = _Pool.of(x.device)
        with _beside(_stream(x.device)):  # libraries set themselves up for the stream, in memory of the usual kind
            _both_passes(net, x[:WARM].detach(), last)
        wanted = _both_passes(net, self.x.detach(), last)  # and choose and load the kernels of this size
        self.gradient = torch.ones_like(wanted)
        with torch.enable_grad():
            with _recorded(self._pool) as self._forward:
                logits = net(self.x, last)
            with _recorded(self._pool) as self._backward:
                (self.of_images,) = torch.autograd.grad(logits, self.x, self.gradient)
        self.logits = logits.detach()
        self.forward()
        if not float((self.logits - wanted).abs().max()) <= DIFFERENCE * float(wanted.abs().max()):
            raise RuntimeError("a replay computes other logits")

    def forward(self) -> None:
        """Compute ``logits`` from ``x``."""
        self._forward.replay()

    def backward(self) -> None:
        """Compute ``of_images`` from ``gradient``, at the images of the last ``forward``."""
        self._backward.replay()


def _both_passes(net: EarlyExitNet, x: Tensor, last: int) -> Tensor:
    """Run a forward and a backward pass, and return the logits."""
    x = x.requires_grad_()
    with torch.enable_grad():
        logits: Tensor = net(x, last)
        torch.autograd.grad(logits, x, torch.ones_like(logits))
    return logits.detach()


def _replay(graph: torch.cuda.CUDAGraph, _pool: _Pool) -> None:
    graph.replay()


@contextmanager
def _recorded(pool: _Pool) -> Iterator[torch.cuda.CUDAGraph]:
    """Record what is launched within the context; nothing is computed until the graph is replayed.

    Unlike ``torch.cuda.graph``, it leaves torch's cache of memory as it is: giving that back takes longer than the recording.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(pool.device)
    with _recording(graph, pool.handle, _stream(pool.device)):
        yield graph


@contextmanager
def _recording(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()  # what it frees may call the device
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                yield
            finally:
                graph.capture_end()
    finally:
        if collects:
            gc.enable()


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run on ``stream`` behind what the current stream has been given, which goes on behind it."""
    before = torch.cuda.current_stream(stream.device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)


class CudaRecorder:
    """Records passes and any other work on a GPU."""

    def passes(self, net: EarlyExitNet, x: Tensor, last: int) -> CudaPasses:
        """Record the passes of a network."""
        return CudaPasses(net, x, last)

    def beside(self, work: Callable[[], None], device: torch.device) -> None:
        """Run work on the stream of recordings, so that libraries set themselves up for it."""
        with _beside(_stream(device)):
            work()

    def record(self, work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        """Record work, without running it, and return a function that replays it."""
        pool = _Pool.of(device)
        with _recorded(pool) as graph:
            work()
        return partial(_replay, graph, pool)


class _Pool:
    """The memory of all recordings on a device.

    A handle is void once the last recording in it is gone; one of a single operation lives as long as this object, and with it
    the memory is given back. Whoever makes a recording holds this object.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.handle: Any = torch.cuda.graph_pool_handle()
        self._kept, self._number = torch.cuda.CUDAGraph(), torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
        with _recording(self._kept, self.handle, _stream(device)):
            self._number.add_(1)

    @staticmethod
    def of(device: torch.device) -> _Pool:
        """Return the one of a device."""
        found = _pools.get(device)
        if found is None:
            found = _pools[device] = _Pool(device)
        return found


_pools: WeakValueDictionary[torch.device, _Pool] = WeakValueDictionary()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch leaves it untyped

"""Runs the same update many times: on a GPU captured as a CUDA graph, which starts all its kernels at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

PLAIN_FIRST = 3
"""Number of updates that run plainly before one is captured: libraries set themselves up in them."""

Work = Callable[[Tensor], None]
"""Works on the numbers ``(B,)`` int64 of what is to be done, and leaves its results in tensors of its own."""

Tell = Callable[[str], None]


class Replay:
    """Runs work of equal shapes, at first plainly and then as a CUDA graph.

    Every run, plain or captured, is one that counts: nothing is run for practice. What cannot be captured goes on plainly, which
    is told once.

    Args:
        device: The device of the work.
        wanted: Whether to capture; it never happens on a CPU.
        tell: Called with the reason if capturing fails.
    """

    def __init__(self, device: torch.device, wanted: bool, tell: Tell) -> None:
        self.on = wanted and device.type == "cuda"
        self.tell = tell
        self.used = False
        self._purpose: Hashable = None
        self._runs: dict[int, int] = {}
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, purpose: Hashable, work: Work, numbers: Tensor) -> None:
        """Run ``work`` on ``numbers``; it may be replayed where purpose and length are those of earlier runs.

        Args:
            purpose: Whatever the work depends on beside ``numbers``; graphs of another purpose are dropped.
            work: The work.
            numbers: Its input ``(B,)``.
        """
        if not self.on:
            return work(numbers)
        if purpose != self._purpose:
            self._purpose, self._runs, self._graphs = purpose, {}, {}
        n = len(numbers)
        if n not in self._graphs and self._runs.get(n, 0) < PLAIN_FIRST:
            self._runs[n] = self._runs.get(n, 0) + 1
            return self._beside(work, numbers)
        if n not in self._graphs and not self._capture(work, numbers):
            return work(numbers)
        graph, held = self._graphs[n]
        held.copy_(numbers)
        graph.replay()
        return None

    def _capture(self, work: Work, numbers: Tensor) -> bool:
        held, graph = numbers.clone(), torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                work(held)
        except RuntimeError as error:
            self.on = False
            self.tell(f"the update cannot be captured as a CUDA graph ({str(error).splitlines()[0]}); it runs without")
            torch.cuda.synchronize()
            return False
        self._graphs[len(numbers)] = graph, held
        self.used = True
        return True

    def _beside(self, work: Work, numbers: Tensor) -> None:
        """Run on a stream of its own, as a capture will, so that what libraries keep for each stream is not the main stream's."""
        main = torch.cuda.current_stream()
        side = self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            work(numbers)
        main.wait_stream(side)

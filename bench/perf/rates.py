"""Measures forward passes and input gradients per second at several batch sizes, plainly and replayed as a CUDA graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.runner.prepare import Prepared
from exitbench.timing.timing import forward_and_gradient, seconds

BATCHES = (256, 1024, 4096)
ROUNDS = 9

Rates = dict[str, dict[str, Any]]


def rates(prepared: Prepared, batches: Sequence[int] = BATCHES) -> Rates:
    """Return images per second by network, way (``launched``, ``graph``) and batch size.

    Networks are the ``plain`` model, the ``search`` model, and that as attacks get it (``searched``). Graphs are for GPUs alone.
    What fails is told in place of the figure.
    """
    target = prepared.target
    device = next(target.model.parameters()).device
    found: Rates = {"searched, launched": {str(batch): _rate(target.searched, batch, prepared, "launched") for batch in batches}}
    for name, net in {"plain": target.model, "search": target.search_model}.items():
        for way in ("launched", "graph") if device.type == "cuda" else ("launched",):
            found[f"{name}, {way}"] = {str(batch): _rate(net, batch, prepared, way) for batch in batches}
    return found


def _rate(net: EarlyExitNet, batch: int, prepared: Prepared, way: str) -> float | str:
    device = next(prepared.target.model.parameters()).device
    x = torch.rand(batch, *prepared.split.shape, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        step = _captured(net, x) if way == "graph" else lambda: forward_and_gradient(net, x)
        for _ in range(3):
            step()
        took = statistics.median(seconds(step, device)[0] for _ in range(ROUNDS))
    except RuntimeError as error:
        return first_line(error)
    return batch / took


def _captured(net: EarlyExitNet, x: Tensor) -> Callable[[], Any]:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            forward_and_gradient(net, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward_and_gradient(net, x)
    return graph.replay

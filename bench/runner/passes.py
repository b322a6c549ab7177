"""Counts forward and backward passes at the target's boundary, in samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.utils._pytree import tree_leaves

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.spare_passes import on_spared


@dataclass
class Passes:
    """Passes counted per sample: a forward pass of 32 images counts 32. Passes that stop at an early exit count whole, and those
    made ahead of their turn that were not needed (``exitbench.models.spare_passes``) do not count."""

    forwards: int = 0
    backwards: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forwards + other.forwards, self.backwards + other.backwards)


@contextmanager
def counted(model: EarlyExitNet) -> Iterator[Passes]:
    """Count all passes through the model's entry within the context."""
    passes = Passes()

    def on_backward(gradient: Tensor) -> None:
        passes.backwards += len(gradient)

    def on_forward(_module: nn.Module, _inputs: object, out: object) -> None:
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        passes.forwards += len(tensors[0])
        followed = [tensor for tensor in tensors if tensor.requires_grad]
        if torch.is_grad_enabled() and followed:
            register_multi_grad_hook(followed, on_backward, mode="any")

    def on_spared_passes(forwards: int, backwards: int) -> None:
        passes.forwards -= forwards
        passes.backwards -= backwards

    handle = model.entry.register_forward_hook(on_forward)
    try:
        with on_spared(on_spared_passes):
            yield passes
    finally:
        handle.remove()

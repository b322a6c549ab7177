"""Counts the multiply-accumulates by zero weights in a network as it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class ZeroWeights(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its hook untyped
    """A dispatch mode that counts the multiply-accumulates of convolutions and matrix products by zero weights.

    Only parameters and buffers of ``model`` count as weights: activations may be zero, too, as the image counted on is. Tensors
    on the meta device have no values; none is taken for zero.

    Attributes:
        macs: Multiply-accumulates by zero weights so far.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own = {_storage(tensor) for tensor in chain(model.parameters(), model.buffers())}
        self.seen: dict[tuple[int, int], tuple[int, int]] = {}  # place and size: zeros among them, and how many they are
        self.macs = 0

    @property
    def share(self) -> float:
        """Share of the weights used so far that are zero; each weight counts once."""
        return sum(zeros for zeros, _ in self.seen.values()) / max(sum(n for _, n in self.seen.values()), 1)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.macs += self.count(func.overloadpacket, args, out)
        return out

    def count(self, operator: Any, args: Sequence[Any], out: Any) -> int:
        """Count the multiply-accumulates by zero weights of one operation, and include its weights in ``share``."""
        found = 0
        for weight, uses in _weights(operator, args, out):
            if not weight.is_meta and _storage(weight) in self.own:
                zeros = weight.numel() - int(weight.count_nonzero())
                self.seen[weight.data_ptr(), weight.numel()] = zeros, weight.numel()
                found += zeros * uses
        return found


def _weights(operator: Any, args: Sequence[Any], out: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Yield the operands that may be weights, and the number of multiply-accumulates that each of their entries takes part in.

    An entry of a convolution's weight is used once for every position of the output (of the input, if it is transposed),
    whatever stride, padding and groups are. Batched products are products of activations and are left out.
    """
    aten = torch.ops.aten
    if operator is aten.convolution:
        x, weight, transposed = args[0], args[1], args[6]
        yield weight, math.prod((x if transposed else out).shape[2:]) * len(x)
    elif operator in (aten.mm, aten.addmm):
        left, right = args[-2:]
        yield left, right.shape[1]
        yield right, left.shape[0]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

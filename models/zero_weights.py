"""Counts the multiply-accumulates by zero weights in a network as it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from exitbench.models.operators import macs_of, operator_name, recurrent_weights


class ZeroWeights:
    """Counts the multiply-accumulates of convolutions, matrix products and recurrent layers by zero weights.

    Only parameters and buffers of ``model`` count as weights: activations may be zero, too, as the image counted on is. Tensors
    on the meta device have no values; none is taken for zero.
    """

    def __init__(self, model: nn.Module) -> None:
        self.own = {_storage(tensor) for tensor in chain(model.parameters(), model.buffers())}
        self.seen: dict[tuple[int, int], tuple[int, int]] = {}  # place and size: zeros among them, and how many they are

    @property
    def share(self) -> float:
        """Share of the weights used so far that are zero; each weight counts once."""
        return sum(zeros for zeros, _ in self.seen.values()) / max(sum(n for _, n in self.seen.values()), 1)

    def count(self, func: Any, args: Sequence[Any], out: Any) -> int:
        """Count the multiply-accumulates by zero weights of one operation, and include its weights in ``share``."""
        found = 0
        for weight, uses in _weights(func, args, out):
            if not weight.is_meta and _storage(weight) in self.own:
                zeros = weight.numel() - int(weight.count_nonzero())
                self.seen[weight.data_ptr(), weight.numel()] = zeros, weight.numel()
                found += zeros * uses
        return found


def _weights(func: Any, args: Sequence[Any], out: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Yield the operands that may be weights, and the number of multiply-accumulates that each of their entries takes part in.

    An entry of a convolution's weight is used once for every position of the output (of the input, if it is transposed),
    whatever stride, padding and groups are; one of a recurrent layer's once for every step of every sequence. Batched products
    are products of activations and are left out.
    """
    name = operator_name(func).removeprefix("aten.")
    if name == "convolution":
        x, weight, transposed = args[0], args[1], args[6]
        yield weight, math.prod((x if transposed else out).shape[2:]) * len(x)
    elif name in ("mm", "addmm"):
        left, right = args[-2:]
        yield left, right.shape[1]
        yield right, left.shape[0]
    elif name in ("mv", "addmv"):
        yield args[-2], 1
    elif name == "_trilinear":
        yield args[1], (macs_of(func, args, {}, out) or 0) // args[1].numel()
    elif name in ("mkldnn_rnn_layer", "_cudnn_rnn"):
        for weight in recurrent_weights(args):
            yield weight, args[0].numel() // args[0].shape[-1]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

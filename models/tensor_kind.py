"""Refuses tensors of a checkpoint that a network's own cannot be filled with, or only by changing what they say."""

from __future__ import annotations

import torch
from torch import Tensor


def fault(given: Tensor, own: Tensor | None = None) -> str | None:
    """Return why a tensor of a checkpoint cannot be taken as it is, or None.

    Floats of any precision are taken for floats. For whole numbers, truth values and complex numbers of the network, a tensor of
    another type is taken where the network's type holds every value of it.

    Args:
        given: The tensor of the checkpoint.
        own: The network's tensor of that name, if it has one.
    """
    if (odd := _without_plain_values(given)) and (own is None or _without_plain_values(own) is None):
        return odd
    if own is None or given.dtype == own.dtype or given.shape != own.shape:
        return None
    if own.is_floating_point():
        return None if given.is_floating_point() else f"is {_type(given)} where the network has {_type(own)}: convert it yourself"
    if not _holds(own.dtype, given):
        return f"is {_type(given)}, with values that the network's {_type(own)} does not hold"
    return None


def _without_plain_values(tensor: Tensor) -> str | None:
    if tensor.is_meta:
        return "is a meta tensor: it has a shape and no values"
    if tensor.is_quantized:
        return "is quantised: save the weights of the network before it was quantised, or dequantize() them"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"is {'nested' if tensor.is_nested else 'sparse'}: save it as a dense tensor, with to_dense()"
    return None


def _holds(kind: torch.dtype, given: Tensor) -> bool:
    """Return whether the values are the same after a conversion to ``kind`` and back."""
    there = given.to(kind)
    return not given.dtype.is_complex and bool((there.to(given.dtype) == given).all())


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

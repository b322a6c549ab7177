"""Selects and joins rows of the features that stages pass on, whatever structure these have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only


def take_rows(features: Any, rows: Tensor | slice) -> Any:
    """Return the features of some samples.

    Args:
        features: A tensor, or a tuple, list or dict of tensors, nested at will; every tensor has the batch as first dimension.
        rows: Indices ``(n,)`` int64, a mask ``(B,)`` bool, or a slice.
    """
    if isinstance(features, Tensor):
        return features[rows]
    return tree_map_only(Tensor, lambda tensor: tensor[rows], features)


def joined_rows(features: Any, others: Any) -> Any:
    """Return the features of the samples of both, in the same structure."""
    if isinstance(features, Tensor):
        return torch.cat([features, others])
    return tree_map(lambda one, other: torch.cat([one, other]) if isinstance(one, Tensor) else one, features, others)


def detached(features: Any) -> Any:
    """Return the features without their graph."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach(), features)

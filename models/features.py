"""Selects rows of the features that stages pass on, whatever structure these have."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only


def take_rows(features: Any, rows: Tensor) -> Any:
    """Return the features of some samples.

    Args:
        features: A tensor, or a tuple, list or dict of tensors, nested at will; every tensor has the batch as first dimension.
        rows: Indices ``(n,)`` int64, or a mask ``(B,)`` bool.
    """
    if isinstance(features, Tensor):
        return features[rows]
    return tree_map_only(Tensor, lambda tensor: tensor[rows], features)

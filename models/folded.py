"""Folds batch normalisation into the convolutions before it, for a faster search model."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Net = TypeVar("Net", bound=nn.Module)


def folded(model: Net) -> Net:
    """Return a copy of ``model`` that computes the same function up to rounding, with fewer operations.

    Every convolution followed by a batch normalisation in an ``nn.Sequential`` becomes one convolution. Attacks may *search* on
    the copy; whether what they find is adversarial is decided on the plain model alone.

    Args:
        model: A network in evaluation mode; it is not changed.
    """
    search_model = copy.deepcopy(model).eval()
    for sequence in [module for module in search_model.modules() if isinstance(module, nn.Sequential)]:
        names = list(sequence._modules)
        for name, following in pairwise(names):
            conv, norm = sequence._modules[name], sequence._modules[following]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and _are_plain(conv, norm):
                sequence._modules[name] = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
                sequence._modules[following] = nn.Identity()
    return search_model.to(memory_format=torch.channels_last)


def _are_plain(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Return whether the two compute what their classes do; a subclass may activate as well, or standardise its weights."""
    own = type(conv).forward is nn.Conv2d.forward and type(conv)._conv_forward is nn.Conv2d._conv_forward
    return own and type(norm).forward is nn.BatchNorm2d.forward and norm.running_mean is not None

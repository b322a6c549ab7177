"""Compares exits that a network computes one at a time with those that it returns together."""

from __future__ import annotations

import torch
from torch import Tensor

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import ForeignModelError
from exitbench.models.fingerprint import ROUNDING
from exitbench.models.search_model import relative_difference


@torch.no_grad()
def check_exits(model: EarlyExitNet, x: Tensor) -> None:
    """Refuse a network that stops at its exits and computes something else when it does.

    Nothing is compared where there is nothing to compare: in a network that computes its exits in one way, and in one that
    returns something else every time.

    Args:
        model: The network, in evaluation mode.
        x: Images ``(B, C, H, W)``.

    Raises:
        ForeignModelError: If exits differ by more than rounding.
    """
    if not model.stops or type(model).forward is EarlyExitNet.forward:
        return
    whole = model(x)
    if relative_difference(model(x), whole) > ROUNDING:
        return
    for k, (logits, meant) in enumerate(zip(model.exits(x), whole, strict=True), start=1):
        if logits.shape != meant.shape or (apart := relative_difference(logits[None], meant[None])) > ROUNDING:
            by = "in shape" if logits.shape != meant.shape else f"by {apart:.2g} of their spread"
            raise ForeignModelError(
                f"exit {k}, computed one at a time, differs {by} from what the network returns for all exits together: its "
                "iterator of exits must yield the same logits, and gate scores, as its forward"
            )

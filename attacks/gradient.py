"""The value and input gradient of an objective, per sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from exitbench.attacks.objectives import Objective
from exitbench.attacks.regions import column
from exitbench.models.early_exit import EarlyExitNet


class Ascent(NamedTuple):
    """The result of a forward and a backward pass: values ``(B,)``, gradients like ``x``, and which samples are fooled."""

    values: Tensor
    gradient: Tensor
    fools: Tensor


def ascent(model: EarlyExitNet, objective: Objective, x: Tensor, y: Tensor, target: Tensor | None = None) -> Ascent:
    """Compute the objective at ``x``, its gradient, and whether it is fooled; stages that it does not need are not run.

    Samples do not interact in a model in evaluation mode, so that the gradient of the sum is each sample's own.

    Args:
        model: The network, in evaluation mode.
        objective: The objective to ascend.
        x: Images ``(B, C, H, W)``.
        y: Labels ``(B,)``.
        target: Target classes ``(B,)``, for a targeted loss.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x, upto=objective.upto)
        values = objective(logits, y, target)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return Ascent(values.detach(), gradient, objective.fools(logits.detach(), y))


def value_and_gradient(model: EarlyExitNet, objective: Objective, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the objective ``(B,)`` at ``x`` and its gradient."""
    found = ascent(model, objective, x, y)
    return found.values, found.gradient


@torch.no_grad()
def value(model: EarlyExitNet, objective: Objective, x: Tensor, y: Tensor) -> Tensor:
    """Return the objective ``(B,)`` at ``x``."""
    return objective(model(x, upto=objective.upto), y)


def unit_mean(gradient: Tensor) -> Tensor:
    """Scale each sample's gradient to a mean absolute value of 1, so that momentum weighs all steps alike."""
    mean = gradient.abs().flatten(1).mean(1)
    return gradient / column(torch.where(mean > 0, mean, torch.ones_like(mean)), gradient)

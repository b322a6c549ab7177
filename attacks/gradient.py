"""The value and input gradient of an objective, per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.objectives import Objective
from models.multi_exit import MultiExitNet


def value_and_gradient(model: MultiExitNet, objective: Objective, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The objective ``(B,)`` at ``x`` and its gradient; stages the objective does not need are not run.

    Samples do not interact in a model in evaluation mode, so the gradient of the sum is each sample's own.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        values = objective(model(x, upto=objective.upto), y)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient


@torch.no_grad()
def value(model: MultiExitNet, objective: Objective, x: Tensor, y: Tensor) -> Tensor:
    """The objective ``(B,)`` at ``x``."""
    return objective(model(x, upto=objective.upto), y)

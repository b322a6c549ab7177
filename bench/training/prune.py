"""Magnitude pruning during training; removed weights stay removed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from exitbench.models.multi_exit import MultiExitNet
from exitbench.training.recipe import Pruning


def prunable(model: MultiExitNet) -> dict[str, Tensor]:
    """Return the weights of all convolutions and linear layers by name, without the first layer and each exit's classifier.

    These few layers see the pixels and decide the classes, at little cost; they are usually not pruned.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    whole = list(layers.values())[:1]
    for head in model.heads:
        whole += [module for module in head.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1:]
    return {f"{name}.weight": layer.weight for name, layer in layers.items() if not any(layer is kept for kept in whole)}


class Pruner:
    """A pruner that keeps removed weights of ``model`` at zero and removes more on the recipe's schedule.

    Every layer loses the same share, its smallest magnitudes first. A single threshold for all layers would take most weights
    from the wide late layers, where a weight costs the fewest multiply-accumulates (the last group of ResNet-38 has three
    quarters of its weights and a third of its cost). It would have to remove far more weights to save as much, and the saving
    would not be known beforehand. Layer by layer, the cost follows from the share alone.

    Args:
        model: The network, on its device.
        pruning: Share and schedule; None for no pruning.
        steps_per_epoch: Optimiser steps per epoch.

    Attributes:
        removed: For each weight, by name, a mask of its shape: true where it is removed.
    """

    def __init__(self, model: MultiExitNet, pruning: Pruning | None, steps_per_epoch: int) -> None:
        self.pruning, self.steps_per_epoch = pruning, steps_per_epoch
        self.weights = prunable(model) if pruning else {}
        self.removed = {
            name: torch.zeros(weight.shape, dtype=torch.bool, device=weight.device) for name, weight in self.weights.items()
        }
        self.after(0)

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Remove weights as scheduled; call this after every optimiser step, as its momentum would revive removed weights.

        Args:
            step: Number of optimiser steps made.
        """
        if self.pruning is None:
            return
        share = self.pruning.share(step, self.steps_per_epoch)
        for name, weight in self.weights.items():
            removed = self.removed[name]
            if step <= self.pruning.epochs * self.steps_per_epoch:
                n = min(round(share * weight.numel()), weight.numel() - 1)
                magnitudes = weight.abs().masked_fill(removed, -1.0)  # removed weights stay the smallest
                removed.view(-1)[magnitudes.flatten().topk(n, largest=False, sorted=False).indices] = True
            weight.masked_fill_(removed, 0.0)

    def restore(self, removed: Mapping[str, Tensor]) -> None:
        """Restore the masks of an earlier step; the weights must be those of that step."""
        for name, mask in self.removed.items():
            mask.copy_(removed[name])

"""One update of the weights: augment, craft, loss, gradient, step. Nothing of it waits for the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.bounds.network import Network
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import Policy
from exitbench.training.certified import Certified, bounded_network, bounded_step
from exitbench.training.craft import craft
from exitbench.training.descent import Descent
from exitbench.training.draws import Draws, Rows
from exitbench.training.images import Images, augmented, resized
from exitbench.training.loss import gate_loss, growing_weights, training_loss
from exitbench.training.machine import Machine
from exitbench.training.recipe import Crafting, Phase, Recipe


@dataclass(frozen=True)
class Plan:
    """What the updates of an epoch have in common.

    Attributes:
        phase: The phase of the recipe.
        crafting: The attack that crafts, stepped down after a collapse; None for clean training.
        policy: The deployed rule, where the phase needs it.
    """

    phase: Phase
    crafting: Crafting | None
    policy: Policy | None


class Updater:
    """Makes updates, all of which keep to tensors of fixed shape on the device of the network.

    Args:
        model: The network to train.
        images: The training images, on the same device.
        recipe: The recipe.
        machine: The device and precision.
        descent: Takes the steps.
        shares: Cost ``(K,)`` of each exit as a share of that of the last, for exit weights that grow; None for equal weights.

    Attributes:
        tally: ``(5,)`` float64, summed since it was last set to zero: loss, clean right, clean seen, attacked right, attacked
            seen.
    """

    def __init__(
        self, model: MultiExitNet, images: Images, recipe: Recipe, machine: Machine, descent: Descent, shares: Tensor | None
    ) -> None:
        self.model, self.images, self.recipe, self.machine = model, images, recipe, machine
        self.descent, self.shares = descent, shares
        self.network: Network | None = None
        self.tally = torch.zeros(5, dtype=torch.float64, device=images.labels.device)

    def __call__(self, rows: Tensor, draws: Draws, plan: Plan) -> None:
        """Make the update on the images ``rows`` ``(B,)``; the caller counts it in ``descent.made``."""
        recipe, phase = self.recipe, plan.phase
        x, y = self.images.batch(rows)
        x = resized(augmented(x, draws, recipe.crop_padding, recipe.flip), phase.image_size)
        if phase.certified:
            return self._certified(x, y, phase.certified)
        attacked, others = _chosen(plan, draws)
        inputs = self._crafted(x, y, plan, draws, attacked)
        gates = recipe.trained == "gates"
        self.model.train(not gates)
        if plan.crafting is not None and phase.attacked_share is None:
            loss, right = self._loss_of_halves(x, inputs, y, plan, draws)
        else:
            logits = self._logits(inputs)
            loss = gate_loss(logits, y) if gates else training_loss(logits, y, phase, plan.policy, self._weights())
            right = [_right(logits, y)[part] for part in (others, attacked)]
        self.descent.step(torch.autograd.grad(loss, self.descent.parameters, allow_unused=True))
        self._count(loss.detach() * len(rows), right)
        return None

    def _certified(self, x: Tensor, y: Tensor, settings: Certified) -> None:
        progress = self.descent.progress / self.descent.n_steps
        self.network = self.network or bounded_network(self.model, (int(x.shape[1]), int(x.shape[2]), int(x.shape[3])))
        self.model.eval()
        with self.machine.autocast():
            loss, right = bounded_step(self.network, self._logits(x), x, y, settings, self.recipe.ball.eps, progress)
        self.descent.step(torch.autograd.grad(loss, self.descent.parameters, allow_unused=True))
        self._count(loss.detach() * len(y), right)

    def _crafted(self, x: Tensor, y: Tensor, plan: Plan, draws: Draws, attacked: Rows) -> Tensor:
        """Return the images, those of ``attacked`` crafted."""
        chosen = x[attacked]
        if plan.crafting is None or not len(chosen):
            return x
        self.model.eval()
        self.model.requires_grad_(False)
        inputs = x.clone(memory_format=torch.channels_last)
        with self.machine.autocast():
            noise = draws.noise(attacked)
            inputs[attacked] = craft(self.model, chosen, y[attacked], plan.crafting, self.recipe.ball, noise, plan.policy)
        self.model.requires_grad_(True)
        return inputs

    def _loss_of_halves(
        self, x: Tensor, attacked: Tensor, y: Tensor, plan: Plan, draws: Draws
    ) -> tuple[Tensor, Sequence[Tensor]]:
        phase, weights = plan.phase, self._weights()
        clean_logits, logits = self._logits(x), self._logits(attacked)
        loss = training_loss(clean_logits, y, phase, plan.policy, weights) + training_loss(logits, y, phase, plan.policy, weights)
        if phase.distillation:
            loss = loss + phase.distillation.loss(clean_logits, logits, y, draws)
        return loss / 2, (_right(clean_logits, y), _right(logits, y))

    def _logits(self, x: Tensor) -> Tensor:
        with self.machine.autocast():
            logits: Tensor = self.model(x)
        return logits.to(x.dtype)

    def _weights(self) -> Tensor | None:
        if self.shares is None:
            return None
        return growing_weights(self.shares, self.descent.progress / self.descent.n_steps)

    def _count(self, loss: Tensor, right: Sequence[Tensor]) -> None:
        sums = [loss]
        for each in right:
            sums += [each.sum(), loss.new_full((), len(each))]
        self.tally += torch.stack([value.to(self.tally.dtype) for value in sums])


def _chosen(plan: Plan, draws: Draws) -> tuple[Rows, Rows]:
    """Return the rows of the batch that are attacked, and the others."""
    if plan.crafting is None:
        return slice(0), slice(None)
    if plan.phase.attacked_share is None:
        return slice(None), slice(0)
    return draws.attacked(plan.phase.attacked_share)


def _right(logits: Tensor, y: Tensor) -> Tensor:
    """Return whether the last exit is right, ``(B,)``."""
    return logits.detach()[-1].argmax(-1) == y

"""Crafts the adversarial training images of a recipe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.attacks.deployed_loss import exit_probabilities, expected_failure
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE
from exitbench.attacks.regions import ThreatModel
from exitbench.models.features import take_rows
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import Policy
from exitbench.training.recipe import Crafting

AVERAGE_SHARE = 0.5
"""Share of the images that ``sampled`` attacks at all exits at once."""

Loss = Callable[[Tensor], Tensor]
"""Maps images ``(B, C, H, W)`` to the loss to ascend, ``(B,)``."""


def craft(
    model: MultiExitNet, x: Tensor, y: Tensor, crafting: Crafting, ball: ThreatModel, noise: Noise, policy: Policy | None = None
) -> Tensor:
    """Return attacked images ``(B, C, H, W)`` in [0, 1], detached.

    Args:
        model: The network, used in its present mode; its parameters should not require gradients.
        x: Images ``(B, C, H, W)`` in [0, 1].
        y: Labels ``(B,)``.
        crafting: The attack to craft with.
        ball: The threat model; only its radius counts if ``crafting`` is not bounded.
        noise: The random numbers of each sample.
        policy: The deployed rule; required to craft against ``policy``.

    Raises:
        ValueError: If ``crafting`` is against the policy and there is none.
    """
    if crafting.against == "max_average":
        attacked = [_ascend(x, crafting, ball, noise, k, _exit_loss(model, y, k)) for k in range(model.n_exits)]
        with torch.no_grad():
            values = torch.stack([CE()(model(x_adv), y).mean(0) for x_adv in attacked])
        return torch.stack(attacked)[values.argmax(0), torch.arange(len(x), device=x.device)]
    return _ascend(x, crafting, ball, noise, 0, _loss(model, y, crafting, noise, policy))


def _loss(model: MultiExitNet, y: Tensor, crafting: Crafting, noise: Noise, policy: Policy | None) -> Loss:
    if crafting.against == "main":
        return _exit_loss(model, y, model.n_exits - 1)
    if crafting.against == "policy":
        if policy is None:
            raise ValueError("crafting against the policy needs one")
        return lambda x: _deployed_loss(model(x), y, policy, crafting)
    if crafting.against == "sampled" and model.n_exits > 1:
        draws = noise.uniform(torch.empty(len(y), 2, device=y.device), restart=1)
        exits = (draws[:, 0] * model.n_exits).long().clamp(max=model.n_exits - 1)
        single = draws[:, 1] >= AVERAGE_SHARE
        exits = torch.where(single, exits, model.n_exits)
        # Rows that leave the batch save arithmetic, which a CPU is short of, and make a GPU wait for the host.
        sampled = _sampled_loss if y.device.type == "cpu" else _sampled_loss_at_full_width
        return lambda x: sampled(model, x, y, exits)
    return lambda x: CE()(model(x), y).mean(0)


def _deployed_loss(logits: Tensor, y: Tensor, policy: Policy, crafting: Crafting) -> Tensor:
    loss = expected_failure(logits, y, policy, crafting.temperature)
    if not crafting.deferral:
        return loss
    share = torch.arange(1, len(logits) + 1, device=logits.device) / len(logits)
    taken = exit_probabilities(logits, policy, crafting.temperature)
    return loss + crafting.deferral * (taken * share[:, None]).sum(0)


def _exit_loss(model: MultiExitNet, y: Tensor, k: int) -> Loss:
    return lambda x: F.cross_entropy(_at_exit(model, x, k), y, reduction="none")


def _at_exit(model: MultiExitNet, x: Tensor, k: int) -> Tensor:
    """Return the logits ``(B, classes)`` of exit ``k``; no other head is run."""
    features = x
    for stage in model.stages[: k + 1]:
        features = stage(features)
    logits: Tensor = model.heads[k](features)
    return logits


def _sampled_loss(model: MultiExitNet, x: Tensor, y: Tensor, exits: Tensor) -> Tensor:
    """Return each sample's loss ``(B,)`` at the exit ``(B,)`` drawn for it, or, where that is K, its mean loss over the exits.

    Samples leave the batch after their exit, and heads see only the samples that need them.
    """
    n_exits = model.n_exits
    losses = []
    rows = torch.arange(len(y), device=y.device)
    features = x
    for k, (stage, head) in enumerate(zip(model.stages, model.heads, strict=True)):
        features = stage(features)
        chosen = (exits[rows] == k) | (exits[rows] == n_exits)
        if chosen.any():
            loss = F.cross_entropy(head(take_rows(features, chosen)), y[rows[chosen]], reduction="none")
            weighted = torch.where(exits[rows[chosen]] == n_exits, loss / n_exits, loss)
            losses.append(torch.zeros_like(y, dtype=loss.dtype).index_add(0, rows[chosen], weighted))
        stays = exits[rows] > k
        rows, features = rows[stays], take_rows(features, stays)
        if not len(rows):
            break
    return torch.stack(losses).sum(0)


def _sampled_loss_at_full_width(model: MultiExitNet, x: Tensor, y: Tensor, exits: Tensor) -> Tensor:
    """Return the losses ``(B,)`` of ``_sampled_loss`` from all exits of all samples, in shapes that do not depend on data."""
    losses = CE()(model(x), y)
    own = torch.arange(len(losses), device=y.device)[:, None] == exits
    weights = torch.where(exits == len(losses), 1 / len(losses), own.to(losses.dtype))
    return (weights * losses).sum(0)


def _ascend(x: Tensor, crafting: Crafting, ball: ThreatModel, noise: Noise, restart: int, loss: Loss) -> Tensor:
    wide = ThreatModel(ball.norm, crafting.start * ball.eps)
    x_adv = wide.start(x, noise, restart) if crafting.start else x
    for _ in range(crafting.steps):
        inputs = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(inputs).sum(), inputs)
        x_adv = x_adv + crafting.step * ball.eps * ball.steepest(gradient)
        x_adv = ball.project(x_adv, x) if crafting.bounded else x_adv.clamp(0, 1)
    return x_adv.detach()

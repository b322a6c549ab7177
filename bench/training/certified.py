"""The loss of certified training: the cross-entropy of the worst logits that bounds allow in the whole ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exitbench.bounds.interval import Interval
from exitbench.bounds.network import Features, Network, differences, interval_bounds, lower_bounds
from exitbench.bounds.trace import traced
from exitbench.models.errors import InvalidValue
from exitbench.models.multi_exit import MultiExitNet

Bounds = Literal["ibp", "crown_ibp"]


@dataclass(frozen=True)
class Certified:
    """Training on bounds of every exit's margins, over balls that grow.

    The loss of an exit is ``kappa CE(clean) + (1 - kappa) CE(worst)``, where ``worst`` are the lowest differences of the
    label's logit and each other one that the bounds allow (Gowal et al., 2018, equations 11 and 12; the last layer is part of
    the differences).

    With a ``gate``, exits but the last are trained for a rule that lets an input leave where its most probable class leads by
    so much. Such an exit fails only where a wrong class leads by ``gate``, so that its worst differences are raised by it; and
    ``saving`` times the loss with differences lowered by ``gate`` asks that the gate stays open for the whole ball, which is
    what the certified cost is made of.

    Attributes:
        bounds: ``ibp`` for interval bounds; ``crown_ibp`` for a mixture with backward substitution over interval bounds, whose
            share falls from 1 to 0 while the radius grows (Zhang et al., ICLR 2020, equation 9).
        radius: Largest radius trained on, in radii of the ball: more than 1, since bounds are looser on other images.
        warmup: Share of all steps before the radius grows.
        ramp: Share of all steps at which it is reached.
        kappa: Weight of the clean loss from there on; it falls from 1.
        gate: Lead in logits at which gates are to open; None for exits that are all to be right.
        saving: Weight of staying open, for exits with a gate.
        nearest: Number of classes for which ``crown_ibp`` substitutes backward, those with the lowest interval bounds: with
            all, a step takes several times as long.
    """

    bounds: Bounds = "ibp"
    radius: float = 4 / 3
    warmup: float = 0.02
    ramp: float = 0.6
    kappa: float = 0.5
    gate: float | None = None
    saving: float = 0.3
    nearest: int = 2

    def __post_init__(self) -> None:
        if self.bounds not in get_args(Bounds):
            raise InvalidValue(f"no such bounds to train on: {self.bounds!r}; known: {', '.join(get_args(Bounds))}")
        if not 0 <= self.warmup < self.ramp <= 1 or not 0 <= self.kappa <= 1 or self.radius <= 0 or self.saving < 0:
            raise InvalidValue(f"need 0 <= warmup < ramp <= 1, kappa in [0, 1], a radius > 0 and a saving >= 0: {self}")

    def grown(self, progress: Tensor | float) -> Tensor:
        """Return the share in [0, 1] of the radius that is reached after this share of all steps, smooth at its start."""
        share = (torch.as_tensor(progress) - self.warmup).div(self.ramp - self.warmup).clamp(0, 1)
        bend = 0.25
        return torch.where(share < bend, share**2 / bend, 2 * share - bend) / (2 - bend)


def bounded_network(model: MultiExitNet, input_shape: tuple[int, int, int]) -> Network:
    """Return the layers of ``model`` in evaluation mode, for ``certified_loss``.

    Raises:
        InvalidValue: If it normalises by batch statistics, which have no bounds while they are trained.
        Unsupported: If there is a layer without bounds.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise InvalidValue("certified training takes networks without batch normalisation")
    was_training = model.training
    try:
        return traced(model.eval(), input_shape)
    finally:
        model.train(was_training)


def bounded_step(
    network: Network, logits: Tensor, x: Tensor, y: Tensor, settings: Certified, eps: float, progress: Tensor | float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the loss of a batch, and whether the last exit is right ``(B,)`` on the images, and for certain in their balls.

    Args:
        network: The model's layers.
        logits: The model's logits ``(K, B, classes)`` in evaluation mode: dropout has no bounds that hold without it.
        x: Images ``(B, C, H, W)``.
        y: Labels ``(B,)``.
        settings: The settings.
        eps: Radius of the ball.
        progress: Share of all steps that are made.
    """
    share = settings.grown(progress).to(logits)
    loss, margins = certified_loss(network, logits, x, y, settings, eps, share)
    others = margins.detach().masked_fill(_own(y, margins.shape[1]), torch.inf)
    return loss, (logits.detach()[-1].argmax(-1) == y, others.amin(1) > 0)


def certified_loss(
    network: Network, clean: Tensor, x: Tensor, y: Tensor, settings: Certified, eps: float, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the batch mean of the loss, summed over the exits, and the lowest differences ``(B, classes)`` at the last exit.

    Args:
        network: The model's layers.
        clean: The model's logits ``(K, B, classes)`` of ``x``, without dropout.
        x: Images ``(B, C, H, W)``.
        y: Labels ``(B,)``.
        settings: The settings.
        eps: Radius of the ball.
        share: Share of the final radius and of the fall of ``kappa`` that is reached, in [0, 1].
    """
    radius = eps * settings.radius * share
    features = interval_bounds(network, Interval((x - radius).clamp(0, 1), (x + radius).clamp(0, 1)), rounding=False)
    kappa = 1 - (1 - settings.kappa) * share
    total = margins = clean.new_zeros(())
    for k, number in enumerate(network.exits):
        margins = _margins(features, number, y, settings, share)
        last = k == len(network.exits) - 1
        both = ((kappa, clean[k].gather(1, y[:, None]) - clean[k]), (1 - kappa, margins))
        for weight, each in both:
            total = total + weight * _exit_loss(each, y, None if last else settings.gate, settings.saving)
    return total, margins


def _exit_loss(margins: Tensor, y: Tensor, gate: float | None, saving: float) -> Tensor:
    """Return the loss of one exit from the differences ``(B, classes)`` of the label's logit and each other."""
    if gate is None:
        return F.cross_entropy(-margins, y)
    lead = gate * _own(y, margins.shape[1]).to(margins)
    return F.cross_entropy(lead - margins, y) + saving * F.cross_entropy(-lead - margins, y)


def _margins(features: Features, number: int, y: Tensor, settings: Certified, share: Tensor) -> Tensor:
    stop, weights, shifts = _carried(features, number)
    box = features.of(stop)
    signs = differences(y, len(shifts), shifts.dtype)
    rows = (signs @ weights.flatten(1)).view(*signs.shape[:2], *weights.shape[1:])
    margins: Tensor = (rows * box.centre[:, None]).flatten(2).sum(-1) - (rows.abs() * box.radius[:, None]).flatten(2).sum(-1)
    margins = margins + signs @ shifts
    if settings.bounds == "ibp":
        return margins
    others = margins.detach().masked_fill(_own(y, margins.shape[1]), torch.inf)
    nearest = others.topk(settings.nearest, largest=False).indices
    rows = signs.gather(1, nearest[:, :, None].expand(-1, -1, margins.shape[1]))
    back = lower_bounds(features, number, rows).to(margins)
    return margins.scatter(1, nearest, (share * margins.gather(1, nearest) + (1 - share) * back).to(margins))


def _carried(features: Features, number: int) -> tuple[int, Tensor, Tensor]:
    """Return the node, weights ``(classes, *features)`` and shifts ``(classes,)`` of an exit's logits as an affine function of
    it.

    It is the last node before the exit that is not affine; the layers between are multiplied out, so that bounds of
    differences of logits lose nothing there.
    """
    logits = features.of(number).low
    weights = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[None]
    shifts = logits.new_zeros(logits.shape[1])
    while features.network.is_affine(number):
        node, inputs = features.network.node(number), features.inputs(number)
        (weights,), constant = node.layer.backward(weights, inputs, features.of(number))
        shifts, (number,) = shifts + constant[0], node.reads
    return number, weights[0], shifts


def _own(y: Tensor, n_classes: int) -> Tensor:
    """Return which entry of ``(B, classes)`` is the label's."""
    return y[:, None] == torch.arange(n_classes, device=y.device)

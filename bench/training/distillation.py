"""Distillation between the exits of a network, from its predictions on clean images to those on attacked ones.

Three published losses. In all of them the teacher's prediction has no gradient, and a student is compared with it by the
cross-entropy ``-sum_c t_c log p_c``.

* NEO-KD (Ham, Park, Han & Moon, NeurIPS 2023, section 3.2): each exit on the attacked image learns from the mean of its
  neighbours on the clean image, itself included, and from its own clean prediction on the label and on a group of the other
  classes that no other exit shares.
* Self-distillation (Phuong & Lampert, ICCV 2019): each exit learns from the last one, on the same attacked image.
* ARD-style (Goldblum, Fowl, Feizi & Goldstein, AAAI 2020, with the network as its own teacher): each exit on the attacked image
  learns from the last one on the clean image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from exitbench.models.errors import InvalidValue
from exitbench.training.draws import Draws

Kind = Literal["neo_kd", "skd", "ard"]


@dataclass(frozen=True)
class Distillation:
    """The distillation term of a training loss.

    Attributes:
        kind: ``neo_kd``, ``skd`` (self-distillation) or ``ard``.
        weight: Weight of the term; of neighbour distillation for ``neo_kd``.
        orthogonal: Weight of orthogonal distillation, for ``neo_kd``.
        last: Factor on the weights of the last exit.
        later: Factor on the weights of the later half of the exits, those behind the first half: 3 to 5 of 5 exits.
    """

    kind: Kind
    weight: float = 1.0
    orthogonal: float = 0.0
    last: float = 1.0
    later: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidValue(f"no such distillation: {self.kind!r}; known: {', '.join(get_args(Kind))}")
        if min(self.weight, self.orthogonal, self.last, self.later) < 0 or (self.orthogonal and self.kind != "neo_kd"):
            raise InvalidValue(f"weights are at least 0, and only neo_kd has an orthogonal one: {self}")

    def loss(self, clean: Tensor, attacked: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """Return the batch mean of the term, summed over the exits.

        Args:
            clean: Logits ``(K, B, classes)`` on the clean images.
            attacked: Logits ``(K, B, classes)`` on the attacked images.
            y: Labels ``(B,)``.
            draws: The batch's random numbers, for the groups of classes.
        """
        taught = clean.detach().softmax(-1)
        if self.kind == "neo_kd":
            values = self.weight * compared(attacked, neighbours(taught))
            if self.orthogonal:
                groups = class_groups(y, len(attacked), draws.classes(attacked.shape[-1]))
                values = values + self.orthogonal * compared(attacked, orthogonal(taught, y, groups))
        elif self.kind == "skd":
            values = self.weight * compared(attacked[:-1], attacked[-1:].detach().softmax(-1))
        else:
            values = self.weight * compared(attacked, taught[-1:])
        factors = values.new_ones(len(values), 1)
        if self.kind != "skd":
            factors[len(factors) // 2 :].fill_(self.later)
            factors[-1].mul_(self.last)
        return (factors * values).sum(0).mean()


def compared(logits: Tensor, teacher: Tensor) -> Tensor:
    """Return the cross-entropy ``(K, B)`` of logits ``(K, B, classes)`` against a teacher's probabilities."""
    return -(teacher * F.log_softmax(logits, dim=-1)).sum(-1)


def neighbours(probabilities: Tensor) -> Tensor:
    """Return, for each exit, the mean of the probabilities ``(K, B, classes)`` of itself and the exits next to it."""
    n_exits = len(probabilities)
    return torch.stack([probabilities[max(k - 1, 0) : min(k + 2, n_exits)].mean(0) for k in range(n_exits)])


def class_groups(y: Tensor, n_exits: int, drawn: Tensor) -> Tensor:
    """Deal the classes other than the label to the exits at random, as evenly as possible.

    Args:
        y: Labels ``(B,)``.
        n_exits: Number of exits.
        drawn: Uniform numbers ``(B, classes)`` in [0, 1), by whose order the classes are dealt.

    Returns:
        The exit ``(B, classes)`` that each class goes to; -1 for the label.
    """
    order = drawn.scatter(1, y[:, None], 2.0)  # the label comes last
    ranks = order.argsort(1).argsort(1)
    return (ranks % n_exits).scatter(1, y[:, None], -1)


def orthogonal(probabilities: Tensor, y: Tensor, groups: Tensor) -> Tensor:
    """Return each exit's probabilities ``(K, B, classes)`` on the label and its own group of classes, scaled to a sum of 1."""
    exits = torch.arange(len(probabilities), device=y.device)[:, None, None]
    kept = torch.where((groups == exits) | (groups == -1), probabilities, 0.0)
    return kept / kept.sum(-1, keepdim=True).clamp_min(1e-12)

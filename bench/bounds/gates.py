"""What bounds of logit differences prove of an exit rule's gates: open for the whole ball, or never open to a wrong prediction.

All statements are about differences ``z_c - z_j`` of one exit's logits, of which lower bounds ``l_j`` are known, and about the
rule as fp32 arithmetic computes it. With ``u = 2^-24``, a softmax of C classes has an absolute error below ``(C + 10) u``: the
exponent ``z - max`` is rounded by ``u |z - max|``, which moves ``p`` by at most ``u / e``, the exponential by 4 u, sum and
division by ``(C + 1) u``. The entropy's summands ``p log(p + 1e-5)`` have slopes below 13 in ``p``, which makes ``13 (2 C + 8)
u`` over all classes, and are rounded by less than ``50 u`` in sum; ``64 (C + 8) u`` covers both. Thresholds are rounded to
fp32, by ``u`` of their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exitbench.bounds.interval import UNIT


@dataclass(frozen=True)
class ExitBounds:
    """What is known of one exit's logits over each ball of a batch.

    Attributes:
        labels: Labels ``(B,)``.
        label: Lower bounds ``(B, C)`` of the label's logit minus each; 0 for its own.
        named: The class ``(B,)`` that ``lead`` is of; any may be taken, such as the one predicted for the clean image.
        lead: Lower bounds ``(B, C)`` of that class's logit minus each; 0 for its own.
        magnitude: Upper bounds ``(B,)`` of all logits' absolute values.
    """

    labels: Tensor
    label: Tensor
    named: Tensor
    lead: Tensor
    magnitude: Tensor

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.label.shape[1]

    @property
    def wrong_lead(self) -> Tensor:
        """Upper bounds ``(B, C)`` of each wrong class's logit minus the label's; minus infinity for the label."""
        return _without(-self.label, self.labels, -torch.inf)

    @property
    def margin(self) -> Tensor:
        """Lower bounds ``(B,)`` of the label's logit minus the largest of the others."""
        return -self.wrong_lead.amax(1)

    @property
    def others(self) -> Tensor:
        """``lead`` ``(B, C)`` with infinity for the class itself."""
        return _without(self.lead, self.named, torch.inf)

    def rows(self, rows: Tensor) -> ExitBounds:
        """Return the bounds of some of the balls."""
        return ExitBounds(*(value[rows] for value in vars(self).values()))

    def at(self, temperature: float) -> ExitBounds:
        """Return the bounds of the logits divided by a temperature, which fp32 rounds by ``2 u`` of each logit's size."""
        magnitude = self.magnitude / temperature
        slack = (4 * UNIT * magnitude)[:, None]
        return replace(self, label=self.label / temperature - slack, lead=self.lead / temperature - slack, magnitude=magnitude)

    def within(self, other: ExitBounds) -> ExitBounds:
        """Return the tighter of two bounds of the same classes' differences."""
        tighter = {name: getattr(self, name).maximum(getattr(other, name)) for name in ("label", "lead")}
        return replace(self, **tighter, magnitude=self.magnitude.minimum(other.magnitude))


def _without(values: Tensor, classes: Tensor, filling: float) -> Tensor:
    own = torch.arange(values.shape[1], device=values.device) == classes[:, None]
    return values.masked_fill(own, filling)


def softmax_error(n_classes: int) -> float:
    """Return a bound of the error of a probability in fp32."""
    return (n_classes + 10) * UNIT


def entropy_error(n_classes: int) -> float:
    """Return a bound of the error of an entropy in fp32."""
    return 64 * (n_classes + 8) * UNIT


def least_confidence(exit_: ExitBounds) -> Tensor:
    """Return a lower bound ``(B,)`` of the largest probability.

    It is at least that of any class c, ``1 / (1 + sum_j exp(z_j - z_c))``, which falls with each difference ``z_j - z_c <=
    -l_j``.
    """
    return 1 / (1 + torch.exp(-exit_.others).sum(1))


def greatest_entropy(exit_: ExitBounds) -> Tensor:
    """Return an upper bound ``(B,)`` of the softmax entropy H, which is at least that of the rule, ``-sum p log(p + 1e-5)``.

    With ``r_j = exp(z_j - z_c)``, ``S = sum r_j`` and ``p_j = r_j / S``, the derivative of ``H = log S - sum r_j log(r_j) /
    S`` by ``r_j`` is ``(-log p_j - H) / S``: H rises with every ``r_j`` as long as ``p_j < exp(-H)``. Now ``p_c >= q``
    (``least_confidence``), so that ``p_j <= 1 - q`` for the others, and for ``q >= 1 / C`` the entropy is at most ``B = h(q) +
    (1 - q) log(C - 1)``: that of c against the rest, and of a uniform rest. So where ``1 - q < exp(-B)``, H is largest where
    every ``r_j`` is, at ``exp(-l_j)``; elsewhere B is the bound, or ``log C``.
    """
    q, n = least_confidence(exit_), exit_.n_classes
    rough = torch.where(q >= 1 / n, _binary(q) + (1 - q) * math.log(max(n - 1, 1)), math.log(n))
    ratios = torch.exp(-exit_.others)
    total = 1 + ratios.sum(1)
    summands = torch.where(torch.isinf(exit_.others), 0, ratios * exit_.others)
    corner = torch.log(total) + summands.sum(1) / total
    return torch.where(1 - q < torch.exp(-rough), corner, rough)


def _binary(p: Tensor) -> Tensor:
    """Return the entropy of two outcomes with probabilities p and 1 - p."""
    return -torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p)


def least_wrong_entropy(exit_: ExitBounds) -> Tensor:
    """Return a lower bound ``(B,)`` of the rule's entropy over all images of the ball at which a wrong class is predicted.

    Let j be predicted, and its lead over the label at most ``D >= 0`` (with a negative bound it is never predicted). With
    ``s = p_j + p_y``, grouping the others gives ``H >= h(s) + s h(p_y / s)``, where ``p_y / s`` lies in ``[1 / (1 + e^D), 1 /
    2]``, so that ``h(p_y / s) >= d = h(1 / (1 + e^D))``, and ``d <= log 2``. If ``s >= 1 / 2``, then ``h(s) >= 2 (1 - s) log 2
    >= (1 - s) d`` as h is concave, and ``H >= d``. If ``s < 1 / 2``, then ``H >= -log p_j > log 2 >= d``, as j is the most
    probable class. The rule's ``-sum p log(p + 1e-5)`` is less than H by ``sum p log(1 + 1e-5 / p) <= 1e-5 C``.
    """
    least = _binary(torch.sigmoid(-exit_.wrong_lead))
    possible = exit_.wrong_lead >= 0
    return torch.where(possible, least, torch.inf).amin(1) - 1e-5 * exit_.n_classes


def greatest_wrong_confidence(exit_: ExitBounds) -> Tensor:
    """Return an upper bound ``(B,)`` of the largest probability where a wrong class is predicted; 0 where none ever is.

    If j is predicted, ``p_j <= p_j / (p_j + p_y) = 1 / (1 + exp(z_y - z_j))``.
    """
    return _of_wrong(exit_, torch.sigmoid(exit_.wrong_lead))


def least_margin(exit_: ExitBounds) -> Tensor:
    """Return a lower bound ``(B,)`` of the largest probability minus the second; 0 where no class is known to lead.

    If some class c leads each other by ``l_j > 0``, it is the largest, and ``p_c - p_j = p_c (1 - exp(z_j - z_c)) >= q (1 -
    exp(-l_j))`` with ``p_c >= q`` (``least_confidence``).
    """
    smallest = exit_.others.amin(1)
    return torch.where(smallest > 0, least_confidence(exit_) * -torch.expm1(-smallest), 0)


def greatest_wrong_margin(exit_: ExitBounds) -> Tensor:
    """Return an upper bound ``(B,)`` of the largest probability minus the second where a wrong class is predicted.

    If j is predicted, the second is at least ``p_y``, and ``p_j - p_y = p_j (1 - exp(-d)) <= (1 - exp(-d)) / (1 + exp(-d)) =
    tanh(d / 2)`` with the lead ``d = z_j - z_y``.
    """
    return _of_wrong(exit_, torch.tanh(exit_.wrong_lead / 2))


def _of_wrong(exit_: ExitBounds, values: Tensor) -> Tensor:
    """Return the largest value of the classes that may be predicted wrongly, 0 where none may."""
    return torch.where(exit_.wrong_lead >= 0, values, 0).amax(1)


def all_lead(exits: Sequence[ExitBounds]) -> Tensor:
    """Return whether the same class leads at all these exits, in the whole ball, ``(B,)``."""
    same = torch.stack([each.named == exits[-1].named for each in exits]).all(0)
    return same & torch.stack([each.others.amin(1) > 0 for each in exits]).all(0)


def some_wrong_class_may_lead(exits: Sequence[ExitBounds]) -> Tensor:
    """Return whether there is a wrong class that each of these exits may predict, ``(B,)``; not necessarily for one image."""
    return torch.stack([each.wrong_lead >= 0 for each in exits]).all(0).any(1)

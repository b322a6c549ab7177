"""Certifies images: cheap bounds for all of them, dearer ones for those that are left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from exitbench.bounds.gates import ExitBounds
from exitbench.bounds.interval import UNIT, Interval
from exitbench.bounds.network import Features, Network, interval_bounds, margin_bounds
from exitbench.bounds.rules import Certain, certain
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy
from exitbench.store.cell import TOLERANCE

Method = Literal["ibp", "crown_ibp", "crown"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Bounds from the cheapest to the tightest: intervals; backward substitution over intervals; the same, with the inputs of
small ReLU layers bounded by backward substitution as well."""


@dataclass(frozen=True)
class Proven:
    """What one method and those before it prove of a batch.

    Attributes:
        method: The method.
        right: Whether no image of the ball is classified wrongly, ``(B,)``.
        last: The last exit that one of them may take, 0-based, ``(B,)``.
        seconds: Time that this method took.
    """

    method: Method
    right: Tensor
    last: Tensor
    seconds: float


def ball(x: Tensor, eps: float) -> Interval:
    """Return the box of all images ``(B, C, H, W)`` that an evaluation accepts as in the Linf ball of radius ``eps`` around
    ``x``.

    It accepts a distance of ``eps`` and ``TOLERANCE``, computed in fp32, which differs from the exact one by less than
    ``8 * 2^-24 (1 + eps)``.
    """
    radius = eps + TOLERANCE["Linf"] + 8 * UNIT * (1 + eps)
    return Interval((x.double() - radius).clamp(0, 1), (x.double() + radius).clamp(0, 1))


@torch.no_grad()
def proven(
    network: Network,
    net: EarlyExitNet,
    policy: Policy,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    methods: Sequence[Method] = METHODS,
    neurons: int = 256,
) -> list[Proven]:
    """Return what each method proves of a batch, in order; a method is tried where those before left something open.

    Args:
        network: The network's layers, as ``traced``.
        net: The network, in fp32.
        policy: Its exit rule.
        x: Images ``(B, C, H, W)``, fp32.
        y: Labels ``(B,)``.
        eps: Radius of the Linf ball.
        methods: The methods, cheapest first.
        neurons: Size of the layers that ``crown`` bounds anew.
    """
    logits = net(x)
    named, taken = logits.argmax(-1), policy(logits)
    correct = (
        named.gather(0, taken[None])[0] == y
    )  # a rule that predicts something else is certified only where all exits are right
    best: list[ExitBounds] = []
    found: list[Proven] = []
    state = Certain(torch.zeros_like(correct), torch.full_like(y, len(named) - 1))
    for method in methods:
        began = time.perf_counter()
        rows = (
            ((correct & ~state.right) | (state.last > taken)).nonzero()[:, 0] if found else torch.arange(len(y), device=y.device)
        )
        if len(rows):
            features = interval_bounds(network, ball(x[rows], eps), neurons=neurons if method == "crown" else 0)
            new = [_exit_bounds(features, k, y[rows], each[rows], through=method != "ibp") for k, each in enumerate(named)]
            best = [_merged(old, rows, each) for old, each in zip(best, new, strict=True)] if best else new
            state = certain(policy, best)
        found.append(Proven(method, state.right, state.last, time.perf_counter() - began))
    return found


def _exit_bounds(features: Features, k: int, y: Tensor, named: Tensor, *, through: bool) -> ExitBounds:
    label = _known(margin_bounds(features, k, y, through=through))
    lead = label.clone()
    if (other := named != y).any():
        lead[other] = _known(margin_bounds(features.rows(other), k, named[other], through=through))
    magnitude = features.of(features.network.exits[k]).magnitude.amax(1)
    return ExitBounds(y, label, named, lead, magnitude)


def _known(bounds: Tensor) -> Tensor:
    """Return lower bounds with minus infinity where float64 overflowed, and nothing is known."""
    return torch.where(torch.isfinite(bounds), bounds, -torch.inf)


def _merged(old: ExitBounds, rows: Tensor, new: ExitBounds) -> ExitBounds:
    """Return the bounds of a batch with tighter ones of some of its rows."""
    tighter = old.rows(rows).within(new)
    parts = {}
    for name, value in vars(old).items():
        parts[name] = value.clone()
        parts[name][rows] = getattr(tighter, name)
    return ExitBounds(**parts)

"""Undefended networks that come with the project: images that break them break a network that only hides its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exitbench.checks.subject import Subject
from exitbench.checks.trace import ascend
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import FixedExit
from exitbench.models.registry import model_card
from exitbench.models.weights import load_weights, shipped_weights

UNDEFENDED = "standard"
"""How the names of trainings without a defence begin."""

MOST = 2
"""Networks that images are made on, the first by name."""


@dataclass(frozen=True, eq=False)
class Source:
    """A network that images are made on.

    Attributes:
        weights: SHA-256 of its weights.
        model: The network, in evaluation mode.
    """

    weights: str
    model: EarlyExitNet


def undefended(shape: Sequence[int], n_classes: int) -> list[Source]:
    """Return the shipped networks without a defence for images of ``shape`` ``(C, H, W)`` and this number of classes, if any."""
    found: list[Source] = []
    for card, path in shipped_weights():
        if len(found) < MOST and card.training.startswith(UNDEFENDED) and model_card(card.model).input_shape == tuple(shape):
            model = model_card(card.model).build()
            load_weights(model, path, card.sha256)
            model.eval().requires_grad_(False)
            with torch.no_grad():
                fits = model(torch.zeros(1, *shape)).shape[-1] == n_classes
            found += [Source(card.sha256, model)] if fits else []
    return found


def transferred(subject: Subject, sources: Sequence[Source]) -> Tensor:
    """Return whether an image made by an ascent on one of ``sources`` breaks each sample, ``(B,)``."""
    settings, broken = subject.settings, torch.zeros_like(subject.y, dtype=torch.bool)
    for source in sources:
        model = source.model.placed(subject.x.device)
        on_it = replace(subject, model=model, policy=FixedExit(model.n_exits), recorded=None)
        found = ascend(on_it, settings.region, settings.steps, settings.step_size).last
        broken |= subject.fails(found)
    return broken

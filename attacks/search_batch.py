"""The samples of one ascent, as tensors that stay where they are, and its step, which nothing waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import ALWAYS_SATISFIED, pair_values
from exitbench.attacks.gradient import unit_mean
from exitbench.attacks.regions import ThreatModel, column
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, deployed_logits

FOUND = ("nearest", "distances", "logits", "seen", "broken", "any_wrong", "candidates", "rank")
"""The tensors that a step changes and ``Search`` takes over."""


class Ascended(Protocol):
    """The objective of an ascent: what it computes depends on its arguments and its own value alone."""

    def __call__(self, logits: Tensor, y: Tensor, knob: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        """Return values ``(B,)``.

        Args:
            logits: Logits ``(K, B, C)`` of all exits.
            y: Labels ``(B,)``.
            knob: A number ``()`` that changes from step to step, such as a temperature.
            own: Tensors ``(..., B)`` of the objective, which it may write to.
        """


@dataclass(frozen=True)
class Rules:
    """What a step follows besides its tensors.

    Attributes:
        region: Linf or L2 ball.
        policy: The deployed rule.
        objective: The objective to ascend.
    """

    region: ThreatModel
    policy: Policy
    objective: Ascended


@dataclass(eq=False)
class SearchBatch:
    """The samples of one ascent; ``Search`` describes the tensors that it has for all samples.

    Attributes:
        x, y: Clean images ``(B, C, H, W)`` and labels ``(B,)``.
        nearest, distances, logits, seen, broken, any_wrong, candidates, rank: See ``Search``.
        x_adv: The iterates ``(B, C, H, W)``.
        velocity: Their momentum.
        own: Tensors ``(..., B)`` of the objective.
    """

    x: Tensor
    y: Tensor
    nearest: Tensor
    distances: Tensor
    logits: Tensor
    seen: Tensor
    broken: Tensor
    any_wrong: Tensor
    candidates: Tensor
    rank: Tensor
    x_adv: Tensor
    velocity: Tensor
    own: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, rows: Tensor) -> SearchBatch:
        """Return copies of the samples ``rows`` ``(M,)``."""
        found = {name: tensor.index_select(dimension_of(name), rows) for name, tensor in self.tensors().items()}
        return SearchBatch(**found, own={name: tensor.index_select(-1, rows) for name, tensor in self.own.items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, without those of the objective."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "own"}

    def load(self, other: SearchBatch) -> None:
        """Copy the content of a batch of the same shapes."""
        for name, tensor in self.tensors().items():
            tensor.copy_(getattr(other, name))
        for name, tensor in self.own.items():
            tensor.copy_(other.own[name])

    def step(self, rules: Rules, model: EarlyExitNet, counts: Sequence[int] | None, knob: Tensor, size: Tensor) -> None:
        """Look at the iterates, record them, and move them; one pass forward and one backward.

        Args:
            rules: What the step follows.
            model: The network to search on.
            counts: Where images leave the graph (``EarlyExitNet.leaving_graph``); None if they do not.
            knob: Argument ``()`` of the objective.
            size: Length ``()`` of the step in the region's norm.
        """
        inputs = self.x_adv.detach().requires_grad_()
        with torch.enable_grad():
            attached = model(inputs) if counts is None else model.leaving_graph(inputs, counts)
            values = rules.objective(attached, self.y, knob, self.own)
            (gradient,) = torch.autograd.grad(values.sum(), inputs)
        self.record(rules.policy, inputs.detach(), attached.detach())
        self.velocity.mul_(0.75).add_(unit_mean(gradient))
        moved = self.x_adv + size * rules.region.steepest(self.velocity)
        self.x_adv.copy_(rules.region.project(moved, self.x))

    def record(self, policy: Policy, x_adv: Tensor, logits: Tensor) -> None:
        """Test iterates on every exit and under the policy; keep those that fail or are closest to it.

        Samples already broken keep the iterate that broke them. Nothing here synchronises the device.
        """
        going = ~self.broken
        broken = (deployed_logits(logits, policy)[0].argmax(-1) != self.y) & going
        wrong = (logits.argmax(-1) != self.y).any(0) & going
        values = pair_values(logits, self.y, policy)
        self.seen.copy_(torch.fmax(self.seen, values))  # whatever a network answers with NaN
        distances = -values.amax(1)
        nearest = distances.amin(0)
        closer = broken | ((nearest < self.distances.amin(0)) & going)
        _keep(self.nearest, column(closer, x_adv), x_adv)
        _keep(self.distances, closer, distances)
        _keep(self.logits, closer[:, None], logits)
        rank = torch.where(wrong, nearest, nearest + 2 * ALWAYS_SATISFIED)
        better = broken | ((rank < self.rank) & going)
        _keep(self.candidates, column(better, x_adv), x_adv)
        _keep(self.rank, better, rank)
        self.any_wrong |= wrong
        self.broken |= broken


def padded(batch: SearchBatch, size: int) -> SearchBatch:
    """Return a batch of ``size`` samples: those of ``batch``, then copies of the first that count as broken."""
    rows = torch.arange(size, device=batch.y.device)
    found = batch.rows(torch.where(rows < len(batch), rows, 0))
    return replace(found, broken=found.broken | (rows >= len(batch)))


def dimension_of(name: str) -> int:
    """Return the dimension of the samples in a tensor of a batch."""
    return {"distances": 1, "logits": 1, "seen": 2}.get(name, 0)


def _keep(kept: Tensor, better: Tensor, found: Tensor) -> None:
    """Replace what is kept where something better is found."""
    kept.copy_(torch.where(better, found, kept))

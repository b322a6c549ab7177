"""The state of a search for a failure of the deployed rule, and its one step: to ascend an objective from a start."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import ALWAYS_SATISFIED, distance_to_failure
from exitbench.attacks.gradient import unit_mean
from exitbench.attacks.regions import ThreatModel, column
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, deployed_logits

Ascended = Callable[[Tensor, Tensor, float, Tensor], Tensor]
"""Maps logits ``(K, B, C)``, labels, progress in [0, 1] and rows ``(B,)`` of the samples to values ``(B,)``."""

COMPACT_EVERY = {"cuda": 5}
"""Number of steps after which broken samples leave the batch; asking a GPU for them synchronises it. Elsewhere it is 1."""


class Search:
    """The state of a search: for each sample, the iterate closest to failing so far, and whether it fails under the policy.

    Every forward pass is tested on all exits and on the deployed rule; samples that fail leave the search at once. All others
    have spent the same number of gradients, so that the result of a sample does not depend on its batch.

    Args:
        model: The network to search on, in evaluation mode.
        region: Linf or L2 ball.
        policy: The deployed rule.
        x: Clean images ``(B, C, H, W)`` in [0, 1].
        y: Labels ``(B,)``.
        budget: Largest number of gradients per sample.

    Attributes:
        left: Gradients that each survivor may still spend.
        nearest: ``(B, C, H, W)``, the failing iterate, else the one closest to failing since the search last started over.
        distances: ``(K, B)``, its distance to failure at each exit.
        logits: ``(K, B, C)``, the logits of ``nearest``.
        broken: ``(B,)`` bool, whether an iterate fails under the policy.
        any_wrong: ``(B,)`` bool, whether an iterate makes some exit wrong.
        candidates: ``(B, C, H, W)``, the image that breaks each sample, else the closest of all iterates that make some exit
            wrong, else the closest of all.
    """

    def __init__(self, model: EarlyExitNet, region: ThreatModel, policy: Policy, x: Tensor, y: Tensor, budget: int) -> None:
        self.model, self.region, self.policy, self.x, self.y = model, region, policy, x, y
        self.left = budget
        self.nearest, self.candidates = x.clone(), x.clone()
        self.distances = x.new_full((model.n_exits, len(x)), torch.inf)
        self._rank = self.distances[0].clone()
        self.broken, self.any_wrong = torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(y, dtype=torch.bool)
        with torch.no_grad():
            self.logits = model(x)
        self.record(torch.arange(len(x), device=x.device), x, self.logits.clone())

    def survivors(self) -> Tensor:
        """Return the rows of the samples not yet broken."""
        return (~self.broken).nonzero().flatten()

    def forget(self) -> None:
        """Start over: the survivors' closest iterates no longer guide the search; they stay in ``candidates``."""
        self.distances[:, ~self.broken] = torch.inf

    def ascend(
        self, objective: Ascended, start: Tensor, steps: int, *, exits: Tensor | None = None, first: float = 0.25, last: float
    ) -> None:
        """Ascend from ``start`` by the sign of the momentum, for the samples not yet broken and within the budget.

        Args:
            objective: The function to ascend; it gets the logits of all exits.
            start: Images ``(B, C, H, W)`` to start from.
            steps: Number of gradients to spend.
            exits: The exit ``(B,)``, 0-based, that each sample aims at. Elsewhere than on a GPU, where the shapes of a step stay
                as they are, the graph of a sample ends there, and the logits behind it are detached.
            first: First step size, as a share of the radius; it falls to ``last`` as a cosine.
            last: Last step size, as a share of the radius.
        """
        steps = min(steps, self.left)
        self.left -= steps
        rows = self.survivors()
        if rows.device.type == "cuda":
            exits = None
        if exits is not None:
            rows = rows[exits[rows].argsort(descending=True, stable=True)]
        x_adv, velocity = start[rows].clone(), torch.zeros_like(start[rows])
        every, counts = COMPACT_EVERY.get(rows.device.type, 1), None
        for step in range(steps):
            if step % every == 0:
                going = ~self.broken[rows]
                rows, x_adv, velocity = rows[going], x_adv[going], velocity[going]
                if not len(rows):
                    return
                counts = None if exits is None else self._counts(exits[rows])
            progress = step / steps
            inputs = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                attached = self.model(inputs) if counts is None else self.model.leaving_graph(inputs, counts)
                (gradient,) = torch.autograd.grad(objective(attached, self.y[rows], progress, rows).sum(), inputs)
            logits = attached.detach()
            self.record(rows, x_adv, logits)
            velocity = 0.75 * velocity + unit_mean(gradient)
            size = self.region.eps * (last + (first - last) * (1 + math.cos(math.pi * progress)) / 2)
            x_adv = self.region.project(x_adv + size * self.region.steepest(velocity), self.x[rows])
        going = ~self.broken[rows]
        if steps and going.any():
            rows, x_adv = rows[going], x_adv[going]
            with torch.no_grad():
                self.record(rows, x_adv, self.model(x_adv))

    def _counts(self, exits: Tensor) -> list[int]:
        """Return, for each exit of the network, how many of ``exits`` ``(B,)`` are that one or a later one."""
        taken = torch.bincount(exits, minlength=self.model.n_exits)
        counts: list[int] = taken.flip(0).cumsum(0).flip(0).tolist()
        return counts

    def record(self, rows: Tensor, x_adv: Tensor, logits: Tensor) -> None:
        """Test iterates on every exit and under the policy; keep those that fail or are closest to it.

        Samples already broken keep the iterate that broke them. Nothing here synchronises the device.
        """
        y, done = self.y[rows], self.broken[rows]
        broken = (deployed_logits(logits, self.policy)[0].argmax(-1) != y) & ~done
        wrong = (logits.argmax(-1) != y).any(0) & ~done
        distances = distance_to_failure(logits, y, self.policy)
        nearest = distances.amin(0)
        closer = broken | ((nearest < self.distances[:, rows].amin(0)) & ~done)
        self.nearest[rows] = torch.where(column(closer, x_adv), x_adv, self.nearest[rows])
        self.distances[:, rows] = torch.where(closer, distances, self.distances[:, rows])
        self.logits[:, rows] = torch.where(closer[:, None], logits, self.logits[:, rows])
        rank = torch.where(wrong, nearest, nearest + 2 * ALWAYS_SATISFIED)
        better = broken | ((rank < self._rank[rows]) & ~done)
        self.candidates[rows] = torch.where(column(better, x_adv), x_adv, self.candidates[rows])
        self._rank[rows] = torch.where(better, rank, self._rank[rows])
        self.any_wrong[rows] |= wrong
        self.broken[rows] |= broken

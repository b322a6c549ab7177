"""The state of a search for a failure of the deployed rule, and its ascents of an objective from a start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from exitbench.attacks.deployed_loss import pair_values
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.search_batch import FOUND, Ascended, Rules, SearchBatch, dimension_of
from exitbench.attacks.step_recorder import StepRecorder
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy

COMPACT_EVERY = {"cuda": 5}
"""Number of steps after which broken samples leave the batch; asking a GPU for them synchronises it. Elsewhere it is 1."""

NEAR = 1 / 16
"""Share of what a clean image lacks to fail; a sample is near when less than that is lacking. On the authors' RDI-ResNet-38, 35
of the 192 samples that 680 gradients leave are near by their final images, all that 790 more broke of the first 96 among them."""


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
        near_budget: The same for samples that are near when ``budget`` is spent; None for ``budget``. The others end the
            ascent that they are in.

    Attributes:
        left: Gradients that each survivor may still spend, if it is near.
        nearest: ``(B, C, H, W)``, the failing iterate, else the one closest to failing since the search last started over.
        distances: ``(K, B)``, its distance to failure at each exit.
        logits: ``(K, B, C)``, the logits of ``nearest``.
        seen: ``(K, C, B)``, for each pair of exit and wrong class, how close any iterate came to failing there (``pair_values``).
        broken: ``(B,)`` bool, whether an iterate fails under the policy.
        any_wrong: ``(B,)`` bool, whether an iterate makes some exit wrong.
        rank: ``(B,)``, how close the candidate comes; the smaller the better.
        candidates: ``(B, C, H, W)``, the image that breaks each sample, else the closest of all iterates that make some exit
            wrong, else the closest of all.
    """

    def __init__(
        self,
        model: EarlyExitNet,
        region: ThreatModel,
        policy: Policy,
        x: Tensor,
        y: Tensor,
        budget: int,
        near_budget: int | None = None,
    ) -> None:
        self.model, self.region, self.policy, self.x, self.y = model, region, policy, x, y
        self.left = budget if near_budget is None else near_budget
        self._for_near = self.left - budget
        self.nearest, self.candidates = x.clone(), x.clone()
        self.distances = x.new_full((model.n_exits, len(x)), torch.inf)
        self.rank = self.distances[0].clone()
        self.broken, self.any_wrong = torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(y, dtype=torch.bool)
        with torch.no_grad():
            self.logits = model(x)
        self.seen = pair_values(self.logits, y, policy)
        self._at_first = self.lacking()
        self.record(torch.arange(len(x), device=x.device), x, self.logits.clone())

    def survivors(self) -> Tensor:
        """Return the rows of the samples not yet broken."""
        return (~self.broken).nonzero().flatten()

    def going(self) -> Tensor:
        """Return the rows of the samples not yet broken that have gradients left to spend."""
        within = self.left > self._for_near
        return self.survivors() if within else (~self.broken & self.near()).nonzero().flatten()

    def lacking(self) -> Tensor:
        """Return what every iterate ``(B,)`` so far lacks to fail, at the exit and the class where it is least."""
        return -self.seen.amax((0, 1))

    def near(self) -> Tensor:
        """Return which samples ``(B,)`` have come near: a sixteenth of what their clean image lacks is lacking."""
        return self.lacking() < NEAR * self._at_first

    def forget(self) -> None:
        """Start over: the survivors' closest iterates no longer guide the search; they stay in ``candidates``."""
        self.distances.masked_fill_(~self.broken, torch.inf)

    def ascend(
        self,
        objective: Ascended,
        start: Tensor,
        steps: int,
        *,
        own: Mapping[str, Tensor] | None = None,
        knob: Callable[[float], float] = lambda progress: progress,
        exits: Tensor | None = None,
        first: float = 0.25,
        last: float,
    ) -> None:
        """Ascend from ``start`` by the sign of the momentum, for the samples not yet broken and within the budget.

        Args:
            objective: The function to ascend.
            start: Images ``(B, C, H, W)`` to start from.
            steps: Number of gradients to spend.
            own: Tensors ``(..., B)`` of the objective.
            knob: Maps progress in [0, 1] to the objective's number.
            exits: The exit ``(B,)``, 0-based, that each sample aims at. Elsewhere than on a GPU, where the shapes of a step stay
                as they are, the graph of a sample ends there, and the logits behind it are detached.
            first: First step size, as a share of the radius; it falls to ``last`` as a cosine.
            last: Last step size, as a share of the radius.
        """
        rows = self.going()
        planned, steps = steps, min(steps, self.left)
        self.left -= steps
        on_gpu = rows.device.type == "cuda"
        if exits is not None and not on_gpu:
            rows = rows[exits[rows].argsort(descending=True, stable=True)]
        if not (steps and len(rows)):
            return
        taken = self._taken(rows, start, own or {})
        recorder = StepRecorder(self.model, Rules(self.region, self.policy, objective), taken)
        every, counts = COMPACT_EVERY.get(rows.device.type, 1), None
        for step in range(steps):
            if step % every == 0:
                rows = self._compacted(recorder, rows)
                if not len(rows):
                    return
                counts = None if exits is None or on_gpu else self._counts(exits[rows])
            progress = step / planned
            size = self.region.eps * (last + (first - last) * (1 + math.cos(math.pi * progress)) / 2)
            recorder.step(counts, knob(progress), size)
        rows = self._compacted(recorder, rows, at_end=True)
        if len(rows):
            with torch.no_grad():
                self.record(rows, recorder.batch.x_adv[: len(rows)], self.model(recorder.batch.x_adv[: len(rows)]))

    def _taken(self, rows: Tensor, start: Tensor, own: Mapping[str, Tensor]) -> SearchBatch:
        """Return copies of some samples."""
        velocity = torch.zeros_like(start)
        kept = {name: getattr(self, name) for name in ("x", "y", *FOUND)}
        return SearchBatch(**kept, x_adv=start, velocity=velocity, own=dict(own)).rows(rows)

    def _compacted(self, recorder: StepRecorder, rows: Tensor, *, at_end: bool = False) -> Tensor:
        """Let broken samples leave the batch, where that makes it smaller, and return the rows left in it."""
        kept = (~recorder.batch.broken[: len(rows)]).nonzero().flatten()
        recorder.going = len(kept)
        recorder.count()
        if len(kept) < len(rows) and (at_end or recorder.shrinks(len(kept))):
            self._store(recorder.batch, rows)
            recorder.take(kept)
            return rows[kept]
        if at_end:
            self._store(recorder.batch, rows)
        return rows

    def _store(self, batch: SearchBatch, rows: Tensor) -> None:
        """Take over what was found; rows of the batch behind these are padding."""
        n = len(rows)
        for name in FOUND:
            dimension = dimension_of(name)
            getattr(self, name).index_copy_(dimension, rows, getattr(batch, name).narrow(dimension, 0, n))

    def _counts(self, exits: Tensor) -> list[int]:
        """Return, for each exit of the network, how many of ``exits`` ``(B,)`` are that one or a later one."""
        taken = torch.bincount(exits, minlength=self.model.n_exits)
        counts: list[int] = taken.flip(0).cumsum(0).flip(0).tolist()
        return counts

    def record(self, rows: Tensor, x_adv: Tensor, logits: Tensor) -> None:
        """Test iterates of some samples on every exit and under the policy; keep those that fail or are closest to it.

        Samples already broken keep the iterate that broke them. Nothing here synchronises the device.
        """
        batch = self._taken(rows, self.x, {})
        batch.record(self.policy, x_adv, logits)
        self._store(batch, rows)

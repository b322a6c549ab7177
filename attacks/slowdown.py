"""The slowdown attack: it raises the cost of the deployed rule instead of its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from exitbench.attacks.adaptive_search import COMPACT_EVERY
from exitbench.attacks.base import Attack
from exitbench.attacks.gradient import unit_mean
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel, column
from exitbench.attacks.registry import Goal
from exitbench.attacks.slowdown_loss import expected_cost, prediction_held, saved_shares, shut_gates
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.within_reach import exits_within_reach

Mode = Literal["free", "keep_label", "double_kill"]
MODES: tuple[Mode, ...] = get_args(Mode)

WARM, COLD = 0.5, 0.05  # first and last temperature of the soft gates
RANKED_AT = 0.1  # temperature at which iterates that take equally costly exits are ranked
FIRST_WEIGHT = 0.5  # first weight of the constraint on the prediction


@dataclass(frozen=True)
class Slowdown(Attack):
    """A sign ascent with momentum on the cost of the exit taken; every iterate is tested under the policy.

    A cycle shuts the gates from a random start, then ascends the expected cost under soft gates from the best iterate, with the
    temperature annealed. Samples at the costliest exit within reach are finished. The candidate of a sample is an iterate that
    satisfies the mode: the one at the costliest exit, and among these the one with the highest expected cost; where none
    satisfies the mode, it is the clean image. Where no input can change the exit of a policy, the clean images are returned
    without a search. Prior work: DeepSloth (Hong et al., ICLR 2021) and ILFO (Haque et al., CVPR 2020).

    Attributes:
        region: Linf or L2 ball.
        policy: The deployed rule.
        costs: Cost of each exit, in mmacs.
        mode: With ``free``, the prediction may become anything. With ``keep_label``, the deployed prediction stays that on the
            clean image, right or wrong, so that only the cost reveals the attack. With ``double_kill``, the deployed prediction
            must become wrong as well; only in this mode may the cost of a sample fall.
        steps: Gradient steps of each of the two ascents of a cycle.
        cycles: Number of cycles.

    Raises:
        InvalidValue: If the costs do not fit the policy or are not positive and finite, or the mode is unknown.
    """

    version: ClassVar[int] = 2

    goal: ClassVar[Goal] = "cost"

    region: ThreatModel
    policy: Policy
    costs: tuple[float, ...]
    mode: Mode = "free"
    steps: int = 25
    cycles: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs", tuple(float(cost) for cost in self.costs))
        if not self.costs or not all(math.isfinite(cost) and cost > 0 for cost in self.costs):
            raise InvalidValue(f"a slowdown attack needs the cost of every exit, positive and finite, got {self.costs}")
        if self.mode not in MODES:
            raise InvalidValue(f"slowdown mode {self.mode!r} is not one of {', '.join(MODES)}")
        self.policy.check(len(self.costs))

    @property
    def summary(self) -> str:
        cycles = f", {self.cycles} cycles" if self.cycles > 1 else ""
        return f"gates shut, then soft gates; {self.steps} steps each{cycles}"

    @property
    def expected_gradients(self) -> float:
        return 25.0

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        within_reach = exits_within_reach(self.policy, len(self.costs))
        if len(within_reach) == 1:
            return x
        search = _Search(self, model, x, y, most=max(self.costs[k] for k in within_reach))
        for cycle in range(self.cycles):
            search.ascend(self.region.start(x, noise, cycle), soft=False)
            search.ascend(search.best, soft=True)
        return torch.where(column(search.feasible, x), search.best, x)


class _Search:
    """The best iterate of each sample so far, and its rank."""

    def __init__(self, attack: Slowdown, model: EarlyExitNet, x: Tensor, y: Tensor, most: float) -> None:
        self.attack, self.model, self.x, self.most = attack, model, x, most
        self.costs = torch.tensor(attack.costs, dtype=x.dtype, device=x.device)
        self.shares = self.costs / self.costs[-1]
        self.saved = saved_shares(attack.policy, self.shares)
        with torch.no_grad():
            logits = model(x)
        kept = attack.mode != "double_kill"
        self.label = deployed_logits(logits, attack.policy)[0].argmax(-1) if kept else y
        self.best = x.clone()
        self.feasible, self.cost, self.soft = self._rank(logits, self.label)

    @property
    def finished(self) -> Tensor:
        """Whether each sample has reached the highest cost, ``(B,)`` bool."""
        return self.feasible & (self.cost >= self.most)

    @torch.no_grad()
    def _rank(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return whether the mode is satisfied, the cost of the exit taken, and a tie-breaker, each ``(B,)``.

        Where the mode is not satisfied, the cost is 0 and the tie-breaker is how close the iterate comes to satisfying it.
        """
        deployed, taken = deployed_logits(logits, self.attack.policy)
        same = deployed.argmax(-1) == label
        feasible = {"free": torch.ones_like(same), "keep_label": same, "double_kill": ~same}[self.attack.mode]
        soft = expected_cost(logits, self.attack.policy, self.shares, RANKED_AT)
        if self.attack.mode == "free":
            return feasible, self.costs[taken], soft
        held = self._held(logits, label)
        return feasible, torch.where(feasible, self.costs[taken], 0.0), torch.where(feasible, soft, held)

    def _held(self, logits: Tensor, label: Tensor) -> Tensor:
        to_label = self.attack.mode == "keep_label"
        return prediction_held(logits, label, self.attack.policy, to_label=to_label, temperature=RANKED_AT)

    def _values(self, logits: Tensor, label: Tensor, weight: Tensor, progress: float, *, soft: bool) -> Tensor:
        """Return the objective ``(B,)``: the cost under soft gates, or how far the gates are shut, plus the mode's constraint."""
        policy, temperature = self.attack.policy, WARM * (COLD / WARM) ** progress
        values = expected_cost(logits, policy, self.shares, temperature) if soft else shut_gates(logits, policy, self.saved)
        return values if self.attack.mode == "free" else values + weight * self._held(logits, label)

    def ascend(self, start: Tensor, *, soft: bool, momentum: float = 0.75, shrink: float = 0.125) -> None:
        """Ascend from ``start`` for the samples not finished; step sizes fall as a cosine from eps/4 to ``shrink`` of it.

        The weight of the constraint on the prediction grows while it is violated and falls while it is satisfied.
        """
        attack = self.attack
        rows = (~self.finished).nonzero().flatten()
        x_adv, velocity = start[rows].clone(), torch.zeros_like(start[rows])
        weight = torch.full_like(self.cost[rows], FIRST_WEIGHT)
        every = COMPACT_EVERY.get(rows.device.type, 1)
        for step in range(attack.steps + 1):
            final = step == attack.steps
            if step % every == 0 or final:
                going = (~self.finished[rows]).nonzero().flatten()  # a GPU is asked once, not for each tensor
                rows, x_adv, velocity, weight = rows[going], x_adv[going], velocity[going], weight[going]
                if not len(rows):
                    return
            label = self.label[rows]
            x_adv.requires_grad_(not final)
            with torch.set_grad_enabled(not final):
                logits = self.model(x_adv)
                if not final:
                    values = self._values(logits, label, weight, step / attack.steps, soft=soft)
                    (gradient,) = torch.autograd.grad(values.sum(), x_adv)
            x_adv = x_adv.detach()
            feasible = self._offer(rows, x_adv, logits.detach())
            if final:
                return
            weight = torch.where(feasible, (0.95 * weight).clamp(min=0.2), (1.3 * weight).clamp(max=30))
            velocity = momentum * velocity + unit_mean(gradient)
            size = attack.region.eps / 4 * (shrink + (1 - shrink) * (1 + math.cos(math.pi * step / attack.steps)) / 2)
            x_adv = attack.region.project(x_adv + size * attack.region.steepest(velocity), self.x[rows])

    def _offer(self, rows: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Keep the iterates that rank above the best so far, and return which satisfy the mode."""
        feasible, cost, soft = self._rank(logits, self.label[rows])
        was_feasible, was_cost, was_soft = self.feasible[rows], self.cost[rows], self.soft[rows]
        dearer = (cost > was_cost) | ((cost == was_cost) & (soft > was_soft))
        # A finished sample may stay in the batch for others' sake; its iterate is kept.
        better = ((feasible & ~was_feasible) | ((feasible == was_feasible) & dearer)) & ~self.finished[rows]
        self.best[rows] = torch.where(column(better, x_adv), x_adv, self.best[rows])
        self.feasible[rows] = was_feasible | (better & feasible)
        self.cost[rows], self.soft[rows] = torch.where(better, cost, was_cost), torch.where(better, soft, was_soft)
        return feasible

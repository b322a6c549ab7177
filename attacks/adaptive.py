"""The adaptive attack on the deployed rule: it makes a sample take whichever exit it can be broken at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from exitbench.attacks.adaptive_search import Search
from exitbench.attacks.budget import Budgeted
from exitbench.attacks.deployed_loss import constraints_at, expected_failure, expected_margin, joint, reweighted
from exitbench.attacks.noise import Noise
from exitbench.attacks.pairs import PairSearch
from exitbench.attacks.random_search import search_randomly
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import BUDGET
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.policies import Policy
from exitbench.models.spec import WHEN_SET

SOFT_STEPS, JOINT_STEPS = 20, 25
THOROUGH = 2.25
"""Budget of near samples in a worst case, in budgets: two whole rounds by default."""
QUERIES = 4
"""Forward passes of the random search for each gradient of the budget, where the rule gives no gradient."""

Soft = Callable[[Tensor, Tensor, Policy, "float | Tensor"], Tensor]


@dataclass(frozen=True)
class Adaptive(Budgeted):
    """A sign ascent with momentum on the deployed rule; every iterate is tested on all exits and under the policy.

    The attack first ascends the expected failure under soft gates from a random start, then the expected margin from the
    iterate closest to failing; the temperature is annealed. It then goes exit by exit, nearest first: from the closest iterate
    it ascends the constraints of failing at that exit, then the expected margin again; a second time, at the next nearest wrong
    class. What is left by then, after 310 gradients, is searched pair by pair of exit and wrong class (``PairSearch``), 425
    gradients for a round. All of it is repeated from other random starts until the budget is spent. If the rule gives no gradient
    of its gates, these ascents move the exits' predictions alone, and a random search on the deployed prediction follows.

    A budget is the part of one schedule that is run: where the rule has a gradient, what a budget breaks a larger one breaks, by
    the same image.

    Attributes:
        region: Linf or L2 ball.
        policy: The deployed rule.
        budget: Largest number of gradients per sample. A sample that breaks leaves at once, so that the mean over all samples
            is far lower; the runner records it. The result of a sample does not depend on the others.
        near_budget: The same for samples that have come near (``Search.near``) when ``budget`` is spent; None for ``budget``.

    Raises:
        InvalidValue: If the budget is below 1, or above that of near samples.
    """

    version: ClassVar[int] = 5
    spec_name: ClassVar[str] = "PolicyAttack"  # as it was called when the first keys of cells were made of it

    region: ThreatModel
    policy: Policy
    budget: int = BUDGET
    near_budget: int | None = field(default=None, metadata=WHEN_SET)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.near_budget is not None and self.near_budget < self.budget:
            raise InvalidValue(f"near samples need a budget of at least {self.budget} gradients, got {self.near_budget}")

    @property
    def thorough(self) -> Adaptive:
        """The attack with 2.25 times its budget for samples that have come near: alone they are worth more gradients."""
        return replace(self, near_budget=int(THOROUGH * self.budget))

    @property
    def summary(self) -> str:
        most = self.budget if self.near_budget is None else self.near_budget
        gradients = f"soft gates, exit by exit, pairs of exit and class; at most {most} gradients"
        if self.policy.has_gradient:
            return gradients
        return f"{gradients}; the rule's gates have none, so a random search of {QUERIES * self.budget} queries follows"

    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        self.policy.check(model.n_exits)
        search = Search(model, self.region, self.policy, x, y, self.budget, self.near_budget)
        again, pairs = torch.zeros_like(search.distances), PairSearch(search, self.policy, noise)
        for restart in count():
            if not (search.left and len(search.going())):
                break
            search.forget()
            self.softly(search, expected_failure, self.region.start(x, noise, restart), warm=0.5, last=1 / 16)
            self.softly(search, expected_margin, search.nearest, warm=0.3, last=1 / 16)
            self.exit_by_exit(search, again)
            self.exit_by_exit(search, again, wrong_class=restart + 1)
            pairs.round()
        if not self.policy.has_gradient:
            search_randomly(search, noise, QUERIES * self.budget)
        return search.candidates

    def exit_by_exit(self, search: Search, again: Tensor, *, wrong_class: int = 0) -> None:
        """Aim at up to three exits, nearest first; ``again`` ``(K, B)`` counts how often each was aimed at."""
        rows, tried = torch.arange(len(search.y), device=again.device), again.clone()
        for _ in range(min(3, search.model.n_exits)):
            k = (search.distances + tried).argmin(0)
            tried[k, rows] = torch.inf
            again[k, rows] += 1
            self.at_exit(search, search.nearest, k, wrong_class=wrong_class)
            self.softly(search, expected_margin, search.nearest, warm=0.3, last=1 / 32)

    def softly(self, search: Search, objective: Soft, start: Tensor, *, warm: float, last: float) -> None:
        """Ascend an objective of the soft deployed rule; the temperature is annealed from ``warm`` to 0.05."""
        search.ascend(Softly(objective, self.policy), start, SOFT_STEPS, knob=partial(_annealed, warm), last=last)

    def at_exit(self, search: Search, start: Tensor, k: Tensor, *, wrong_class: int = 0) -> None:
        """Ascend the constraints of failing at exit ``k`` ``(B,)``; a constraint weighs more the longer it is violated.

        Args:
            search: The state of the search.
            start: Images ``(B, C, H, W)`` to start from.
            k: The exit of each sample, 0-based.
            wrong_class: 0 for the nearest wrong class at each step; j for the j-th after the nearest at the closest iterate.
        """
        own = {"weights": start.new_ones(search.model.n_exits, len(k)), "k": k}
        if wrong_class:
            own["target"] = _wrong_class(search, k, wrong_class)
        search.ascend(AtExit(self.policy), start, JOINT_STEPS, own=own, exits=k, last=1 / 32)


@dataclass(frozen=True)
class Softly:
    """An objective of the soft deployed rule, whose knob is the temperature."""

    objective: Soft
    policy: Policy

    def __call__(self, logits: Tensor, y: Tensor, knob: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        return self.objective(logits, y, self.policy, knob)


@dataclass(frozen=True)
class AtExit:
    """The constraints of failing at an exit of each sample's own, with their weights, and at a class of its own if it has one."""

    policy: Policy

    def __call__(self, logits: Tensor, y: Tensor, knob: Tensor, own: Mapping[str, Tensor]) -> Tensor:
        here = constraints_at(logits, y, self.policy, own["k"], own.get("target"))
        now = reweighted(own["weights"], here.detach())
        own["weights"].copy_(now)
        return joint(here, now)


def _annealed(warm: float, progress: float) -> float:
    """Return the temperature, which falls from ``warm`` to 0.05."""
    return warm * math.pow(0.05 / warm, progress)


def _wrong_class(search: Search, k: Tensor, rank: int) -> Tensor:
    """Return the wrong class ``(B,)`` of this rank, from 0 and wrapping around, at exit ``k`` of the closest iterate."""
    logits = search.logits[k, torch.arange(len(k), device=k.device)]
    n_wrong = logits.shape[-1] - 1
    label = torch.arange(n_wrong + 1, device=search.y.device) == search.y[:, None]
    by_logit = torch.sort(logits.masked_fill(label, -torch.inf), dim=-1, descending=True, stable=True).indices
    return by_logit[:, rank % n_wrong]

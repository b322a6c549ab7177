"""Decides in how many processes an evaluation is run."""

from __future__ import annotations

import torch

from exitbench.runner.plan import Plan
from exitbench.runner.pool.job import can_be_sent
from exitbench.runner.pool.tasks import tasks
from exitbench.runner.prepare import Prepared

USUAL = 2
"""Processes where there are threads for them: each takes the memory of another torch."""

WORTH = 1e13
"""Expected floating-point operations, about a minute's, from which a further process is worth the seconds of its start."""

_PASSES = 4e6
"""Operations of a forward pass and an input gradient for each million multiply-adds."""


def pool_size(prepared: Prepared, plan: Plan, asked: int | None = None) -> int:
    """Return the number of processes for the missing cells of a plan; 1 where they must run in this one.

    That is on a GPU, and where network, rule or attacks are code outside exitbench and torch, which may behave otherwise in
    another process.

    Args:
        prepared: The resolved request.
        plan: Its plan.
        asked: The number that the user asked for; None for ``USUAL`` if torch has as many threads and there is work for them.
    """
    most = min(asked or USUAL, len(tasks(plan.cells)))
    if most < 2 or next(prepared.target.model.parameters()).device.type != "cpu":
        return 1
    if asked is None and (torch.get_num_threads() < USUAL or expected_operations(prepared, plan) < WORTH):
        return 1
    attacks = {cell.attack for cell in plan.missing}
    return most if can_be_sent((prepared.target, attacks)) else 1


def expected_operations(prepared: Prepared, plan: Plan) -> float:
    """Return the expected floating-point operations of the missing cells."""
    return _PASSES * prepared.target.costs.mmacs[-1] * sum(cell.work for cell in plan.missing)

"""Calibrates exit policies on held-out training data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from exitbench.data.split import Split
from exitbench.errors import UserError, as_user_errors
from exitbench.models.calibration import Kind, equal_share, target_cost
from exitbench.models.cost import measure_costs
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.number_text import real_number
from exitbench.models.policies import FixedExit, Policy
from exitbench.models.spec import digest

METHODS = ("equal", "mmacs=COST")


@torch.no_grad()
def all_logits(model: EarlyExitNet, split: Split, batch_size: int = 100) -> Tensor:
    """Compute the logits ``(K, N, classes)`` of all exits on a whole split."""
    batches = (split.batch(start, start + batch_size) for start in range(0, len(split), batch_size))
    return torch.cat([model(batch.x) for batch in batches], dim=1)


def provenance(inputs: Sequence[str], split: str, kind: Kind, method: str) -> str:
    """Return the digest of what determines thresholds: the hashes of the images, the name of their split, and the procedure."""
    return digest({"inputs": list(inputs), "split": split, "kind": kind, "method": method})[:16]


def calibrated_policy(model: EarlyExitNet, calibration: Split, kind: Kind = "entropy", method: str = "equal") -> Policy:
    """Calibrate thresholds on the calibration split; the digest of split and procedure goes into the policy.

    Args:
        model: A network in evaluation mode.
        calibration: Held-out training data, never test data.
        kind: ``entropy`` or ``confidence``.
        method: ``equal`` (every exit takes the same share) or ``mmacs=COST`` (a target mean cost).

    Raises:
        UserError: If the method is unknown, or the cost is out of reach.
    """
    if model.n_exits == 1:
        return FixedExit(1)
    origin = provenance(calibration.batch(0, len(calibration)).input_hashes(), calibration.name, kind, method)
    logits = all_logits(model, calibration)
    if method == "equal":
        return equal_share(logits, kind, origin)
    name, _, cost = method.partition("=")
    if name != "mmacs":
        raise UserError(f"unknown calibration {method!r}; known: {', '.join(METHODS)}")
    with as_user_errors():
        target = real_number(cost)
        return target_cost(logits, measure_costs(model, calibration.shape).mmacs, target, kind, origin)

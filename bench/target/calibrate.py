"""Calibrates exit policies on held-out training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from exitbench.data.split import Split
from exitbench.errors import UserError, as_user_errors
from exitbench.models.calibration import equal_share, target_accuracy, target_cost
from exitbench.models.cost import measure_costs
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.errors import InvalidValue
from exitbench.models.number_text import real_number
from exitbench.models.policies import FixedExit, Policy
from exitbench.models.rules.temperature import Tempered, fitted_temperatures, tempered
from exitbench.models.spec import digest
from exitbench.target.risk import risk_controlled

METHODS = {
    "equal": "set on held-out training images such that every exit takes the same share",
    "mmacs=COST": "set such that the mean cost is COST",
    "accuracy=A": "the cheapest that is as accurate as A there",
    "risk=R,delta=D": "the cheapest that loses at most R against the last exit, with probability 1 - D",
}


@torch.no_grad()
def all_logits(model: EarlyExitNet, split: Split, batch_size: int = 100) -> Tensor:
    """Compute the logits ``(K, N, classes)`` of all exits on a whole split where the network is; return them on the CPU.

    Raises:
        UserError: If the network raises an error, or returns NaN or infinite values.
    """
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    found = []
    for start in range(0, len(split), batch_size):
        x = split.batch(start, start + batch_size).x.to(device)
        try:
            logits = model(x)
        except Exception as error:
            message = f"the model fails on {len(x)} held-out images that set the exit rule ({first_line(error)})"
            raise UserError(message) from error
        if not torch.isfinite(logits).all():
            raise UserError("the model returns NaN or infinite values on the held-out images that set the exit rule")
        found.append(logits.cpu())
    return torch.cat(found, dim=1)


def provenance(inputs: Sequence[str], split: str, kind: str, method: str) -> str:
    """Return the digest of what determines thresholds: the hashes of the images, the name of their split, and the procedure."""
    return digest({"inputs": list(inputs), "split": split, "kind": kind, "method": method})[:16]


def calibrated_policy(model: EarlyExitNet, calibration: Split, kind: str = "entropy", method: str = "equal") -> Policy:
    """Set a rule on the calibration split; the digest of split and procedure goes into the policy.

    Args:
        model: A network in evaluation mode.
        calibration: Held-out training data, never test data.
        kind: Name of the rule.
        method: ``equal`` (every exit takes the same share), ``mmacs=COST`` (a target mean cost), ``accuracy=A`` (the cheapest
            rule that is as accurate on this split), or ``risk=R,delta=D`` (the largest saving that loses at most R against the
            last exit with probability 1 - D). With ``,temperature`` behind it, one temperature per exit is fitted first.

    Raises:
        UserError: If rule or method is unknown, or the target is out of reach.
    """
    if model.n_exits == 1:
        return FixedExit(1)
    with as_user_errors():
        asked = Method.parsed(method)
        labels = torch.from_numpy(calibration.labels)
        origin = provenance(calibration.input_hashes(), calibration.name, kind, method)
        logits = all_logits(model, calibration)
        if not asked.temperature:
            return _fitted(asked, logits, labels, model, calibration, kind, origin)
        temperatures = fitted_temperatures(logits, labels)
        rule = _fitted(asked, tempered(logits, temperatures), labels, model, calibration, kind, origin)
        return Tempered(rule, temperatures)


@dataclass(frozen=True)
class Method:
    """A procedure that sets a rule.

    Attributes:
        name: ``equal``, ``mmacs``, ``accuracy`` or ``risk``.
        target: The number behind it; 0 for ``equal``.
        delta: Of ``risk``: the largest probability that it loses more.
        temperature: Whether temperatures are fitted first.
    """

    name: str
    target: float = 0.0
    delta: float = 0.05
    temperature: bool = False

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Parse a method as it is written behind the ``@`` of a policy.

        Raises:
            InvalidValue: If there is no such method, or a number is missing.
        """
        first, *options = text.split(",")
        name, equals, value = first.partition("=")
        given = dict(option.partition("=")[::2] for option in options)
        known = {"temperature"} | ({"delta"} if name == "risk" else set())
        fits = name in ("equal", "mmacs", "accuracy", "risk") and bool(equals) == (name != "equal")
        if not fits or given.keys() - known or given.get("temperature", "") or len(given) < len(options):
            forms = f"{', '.join(METHODS)}, each with ,temperature behind it or not"
            raise InvalidValue(f"unknown calibration {text!r}; known: {forms}")
        try:
            delta = real_number(given["delta"]) if "delta" in given else 0.05
            target = real_number(value) if equals else 0.0
        except ValueError as error:
            raise InvalidValue(f"calibration {text!r}: {error}") from error
        return cls(name, target, delta, "temperature" in given)


def _fitted(
    method: Method, logits: Tensor, labels: Tensor, model: EarlyExitNet, calibration: Split, kind: str, origin: str
) -> Policy:
    if method.name == "equal":
        return equal_share(logits, kind, origin)
    if method.name == "risk":
        return risk_controlled(logits, labels, method.target, method.delta, kind, origin)
    mmacs = measure_costs(model, calibration.shape).mmacs
    if method.name == "accuracy":
        return target_accuracy(logits, labels, mmacs, method.target, kind, origin)
    return target_cost(logits, mmacs, method.target, kind, origin)

"""Checks that an exit rule fits a network and decides each sample by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from exitbench.models.at_once import AtOnce, at_once
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.errors import InvalidValue
from exitbench.models.own_code import is_own
from exitbench.models.policies import Policy, SureAbove
from exitbench.models.policy_text import policy_text
from exitbench.models.rules.own import OwnRule
from exitbench.models.rules.temperature import Tempered


def check_rule(policy: Policy, model: EarlyExitNet) -> None:
    """Check that a rule can run on a network.

    Raises:
        InvalidValue: If it is for another number of exits, or needs gate heads that the network does not have.
    """
    try:
        policy.check(model.n_exits)
    except InvalidValue:
        raise
    except Exception as error:  # a rule of somebody else's may raise anything
        if is_own(type(innermost(policy)).__module__):
            raise
        raise InvalidValue(
            f"policy {policy_text(policy)!r} does not take a network of {model.n_exits} exits ({first_line(error)})"
        ) from error
    if policy.needs_scores and not model.has_gate_scores:
        raise InvalidValue(
            f"policy {policy_text(policy)!r}: the network has no gate heads, so there are no scores to compare; rules on its "
            "logits are entropy, confidence, margin, patience, vote and ensemble"
        )


NEAR = 0.2
"""Slack in log units (absolute value) whose sign rounding may decide, in the logarithm of a very small entropy."""

NEAR_ONE = 0.1
"""Unit of a share's slack below which a measure above 1 makes gates outweigh all predictions."""


@torch.no_grad()
def check_decisions(policy: Policy, logits: Tensor) -> None:
    """Check what a rule returns on logits ``(K, B, classes)``: its shapes and values, and that samples do not affect each other.

    Raises:
        InvalidValue: If something is wrong; the message names the method and the exit.
    """
    n_exits, batch, n_classes = logits.shape
    ours = is_own(type(innermost(policy)).__module__)
    for k in range(n_exits):
        seen = logits[: k + 1]
        _check(policy, "predicted", policy.predicted, seen, k, (batch, n_classes))
        if k == n_exits - 1:
            break
        leaves = _check(policy, "leaves", policy.leaves, seen, k, (batch,))
        if leaves.dtype != torch.bool:
            raise InvalidValue(f"{_of(policy, 'leaves', k)} returns {leaves.dtype}; it must return bool, one for each sample")
        slack = _check(policy, "slack", policy.slack, seen, k, (batch,))
        log_slack = _check(policy, "log_slack", policy.log_slack, seen, k, (batch,))
        opening = _check(policy, "opening", lambda some: policy.opening(some, some[-1].argmax(-1)), seen, k, (batch,))
        _check_sign(policy, "slack", k, ((slack > 0) != leaves) & (slack.abs() > 1e-5))
        if not ours:
            clear = slack.abs() > 1e-3
            _check_sign(policy, "log_slack", k, ((log_slack > 0) != leaves) & (log_slack.abs() > NEAR) & clear)
            _check_sign(policy, "opening", k, (opening > NEAR) & ~leaves & clear)
        _check_unit(policy, seen, k)
    if not ours:
        _check_at_once(policy, logits)


def innermost(policy: Policy) -> Policy:
    """Return the rule without temperatures and without what guards ours from a rule of the user's own."""
    while isinstance(policy, (Tempered, OwnRule)):
        policy = policy.rule
    return policy


def _check_sign(policy: Policy, name: str, k: int, wrong: Tensor) -> None:
    if wrong.any():
        raise InvalidValue(
            f"{_of(policy, name, k)} has another sign than leaves for {int(wrong.sum())} of {len(wrong)} samples: "
            "positive must mean that the gate is open"
        )


def _check_at_once(policy: Policy, logits: Tensor) -> None:
    """Check that a rule says of all exits at once what it says exit by exit, but for rounding."""
    each, whole, label = AtOnce(policy), at_once(policy), logits[-1].argmax(-1)
    sure = each.slack(logits).abs() > 1e-3
    for name, more in {"leave": (), "slack": (), "log_slack": (), "opening": (label,), "predicted": ()}.items():
        wanted = getattr(each, name)(logits, *more)
        try:
            found = getattr(whole, name)(logits, *more)
        except Exception as error:
            raise InvalidValue(f"policy {policy_text(policy)!r}: at_once().{name} fails ({first_line(error)})") from error
        same = isinstance(found, Tensor) and found.shape == wanted.shape and found.dtype == wanted.dtype
        if same and found.dtype == torch.bool:
            same = torch.equal(found & sure, wanted & sure)
        elif same:
            same = torch.allclose(found, wanted, rtol=1e-3, atol=1e-3)
        if not same:
            raise InvalidValue(f"policy {policy_text(policy)!r}: at_once().{name} returns something else than exit by exit")


def _check_unit(policy: Policy, seen: Tensor, k: int) -> None:
    """Check that a measure which counts as a share is none above 1, where that decides the unit of its slack."""
    if not isinstance(policy, SureAbove) or type(policy).unit is not SureAbove.unit or not policy.saturates:
        return
    threshold, largest = policy.thresholds[k], float(policy.sureness(seen).max())
    if threshold < 1 and 1 - threshold < NEAR_ONE and largest > 1 + 1e-4:
        raise InvalidValue(
            f"{_of(policy, 'sureness', k)} reaches {largest:.4g}, and its threshold {threshold:.6g} is taken for a share of "
            "1, so that attacks see the gate on a wrong scale: write `saturates = False` in the rule, or override `unit`"
        )


def _check(policy: Policy, name: str, method: Callable[[Tensor], Tensor], seen: Tensor, k: int, shape: tuple[int, ...]) -> Tensor:
    third = max(1, seen.shape[1] // 3)
    try:
        found = method(seen)
        parts = [method(seen[:, start : start + third]) for start in range(0, seen.shape[1], third)]
    except Exception as error:
        raise InvalidValue(f"{_of(policy, name, k)} fails ({first_line(error)})") from error
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        got = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InvalidValue(f"{_of(policy, name, k)} returns {got}; it must return one of shape {shape}")
    if found.is_floating_point() and found.isnan().any():
        n_wrong = int(found.view(len(found), -1).isnan().any(1).sum())
        raise InvalidValue(f"{_of(policy, name, k)} returns NaN for {n_wrong} of {shape[0]} samples")
    alone = torch.cat(parts)
    same = torch.equal(alone, found) if found.dtype == torch.bool else torch.allclose(alone, found, rtol=1e-4, atol=1e-5)
    if not same:
        raise InvalidValue(
            f"{_of(policy, name, k)} depends on the other samples of the batch: a deployed rule decides each sample by itself "
            "(no means or quantiles over the batch)"
        )
    return found


def _of(policy: Policy, name: str, k: int) -> str:
    return f"policy {policy_text(policy)!r}: {name} at exit {k + 1}"

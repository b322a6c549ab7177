"""Checks that the loss of every exit, and every gate, has a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from msgspec.structs import replace
from torch import Tensor

from exitbench.attacks.objectives import Loss, Margin
from exitbench.checks.flag import Flag, Level, exits_text
from exitbench.checks.share import TOO_FEW, ShareTest, Verdict
from exitbench.checks.subject import Subject
from exitbench.models.policies import Policy
from exitbench.models.within_reach import exits_within_reach
from exitbench.store.trust_result import Gradients

ZERO_SHARE = 0.05
"""Share of samples without a gradient above which a loss is no guide (two of 32); a sound model has none."""

ZERO = ShareTest(ZERO_SHARE, 0.01)
"""A sound model may have a sample in a hundred without a gradient, such as one that no unit of a layer sees."""

SATURATED = 1e-4
"""A gate is saturated if moving any logit by 1 moves its slack by less than this share of the threshold.

The attack weighs gates against margins, whose gradients are of order 0.01 to 1; a gate that is a hundred times flatter has no
effect. The slack's gradient is about H/T for an entropy H far below its threshold T.
"""

SATURATED_SHARE = 0.5
"""Share of saturated samples above which the gate counts as saturated, rather than some confident samples."""

SURE = ShareTest(SATURATED_SHARE, 0.25)
"""A gate is sure of a quarter of the samples without being saturated."""


def measure(subject: Subject) -> Gradients:
    """Measure gradients at the random starts of the attacks."""
    x = subject.settings.region.start(subject.x, subject.noise, 0).requires_grad_()
    with torch.enable_grad():
        logits = subject.model(x)
    return Gradients(
        zero=_zero_shares(logits, subject.y, subject.settings.untargeted_loss, x),
        zero_margin=_zero_shares(logits, subject.y, Margin(), x),
        saturated=tuple(_saturated_share(logits[: k + 1].detach(), subject.policy) for k in range(len(logits) - 1)),
        # Zero gradients at an exit that no input can take do not matter.
        reachable=tuple(exits_within_reach(subject.policy, len(logits))),
        right=tuple(int((logits_k.argmax(-1) == subject.y).sum()) for logits_k in logits),
        gated=len(subject.y),
    )


def joined(one: Gradients, other: Gradients) -> Gradients:
    """Return the numbers of both sets of samples."""
    right, others = one.right or (), other.right or ()
    gates = (one.gated or 0, other.gated or 0)
    return replace(
        one,
        zero=tuple(_pooled(a, b, n) for a, b, n in zip(one.zero, other.zero, zip(right, others, strict=True), strict=True)),
        zero_margin=tuple(
            _pooled(a, b, n) for a, b, n in zip(one.zero_margin, other.zero_margin, zip(right, others, strict=True), strict=True)
        ),
        saturated=tuple(_pooled(a, b, gates) for a, b in zip(one.saturated, other.saturated, strict=True)),
        right=tuple(a + b for a, b in zip(right, others, strict=True)),
        gated=sum(gates),
    )


def _pooled(one: float | None, other: float | None, samples: tuple[int, int]) -> float | None:
    """Return the share of both sets, of whole samples."""
    if one is None or other is None:
        return None
    found = [round(share * n) for share, n in zip((one, other), samples, strict=True)]
    return sum(found) / max(1, sum(samples))


def undecided(numbers: Gradients) -> bool:
    """Return whether more samples are needed to tell chance from a fault."""
    verdicts = [*(_zero_verdict(numbers, numbers.zero, k) for k in numbers.reachable), *_gate_verdicts(numbers).values()]
    return "undecided" in verdicts


def _zero_verdict(numbers: Gradients, shares: Sequence[float | None], k: int) -> Verdict:
    """Return whether exit ``k`` has too many samples without a gradient; results without counts are judged by the share."""
    share = shares[k]
    if share is None:
        return "no"
    if numbers.right is None:
        return "yes" if share > ZERO_SHARE else "no"
    return ZERO.verdict(round(share * numbers.right[k]), numbers.right[k], numbers.looks)


def _gate_verdicts(numbers: Gradients) -> dict[int, Verdict]:
    found: dict[int, Verdict] = {}
    for k, share in enumerate(numbers.saturated):
        if share is None:
            continue
        if numbers.gated is None:
            found[k] = "yes" if share > SATURATED_SHARE else "no"
        else:
            found[k] = SURE.verdict(round(share * numbers.gated), numbers.gated, numbers.looks)
    return found


def _zero_shares(logits: Tensor, y: Tensor, loss: Loss, x: Tensor) -> tuple[float | None, ...]:
    return tuple(_zero_share(loss, logits_k, y, x) for logits_k in logits)


def _zero_share(loss: Loss, logits_k: Tensor, y: Tensor, x: Tensor) -> float | None:
    if not logits_k.requires_grad:
        return None
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(logits_k[None], y).sum(), x, retain_graph=True, allow_unused=True)
    if gradient is None:
        return None
    largest = gradient.flatten(1).abs().amax(1)
    right = logits_k.argmax(-1) == y
    return float(((largest == 0) | ~largest.isfinite())[right].double().mean()) if right.any() else 0.0


def _saturated_share(seen: Tensor, policy: Policy) -> float | None:
    """Return the share of samples with next to no gradient of the gate; None for one that nothing opens or shuts."""
    seen = seen.clone().requires_grad_()
    with torch.enable_grad():
        slack = policy.slack(seen)
        if not slack.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(slack.sum(), seen)
    return float((gradient.abs().amax(-1).amax(0) < SATURATED).double().mean())


def flags(numbers: Gradients) -> list[Flag]:
    """Return the failures ``zero gradients`` and ``missing gradients``, and the warning ``saturated gates``.

    Where the samples are too few to tell, the first is a warning, and the last is for the record.
    """
    return [*_missing(numbers), *_zero(numbers), *_saturated(numbers)]


def _missing(numbers: Gradients) -> list[Flag]:
    missing = [k for k in numbers.reachable if numbers.zero[k] is None]
    message = (
        "the logits do not depend differentiably on the image, so gradient attacks end in errors; "
        "remove what cuts the graph (detach, no_grad, numpy)"
    )
    return [Flag("missing gradients", "failure", {"exits": len(missing)}, message, exits_text(missing))] if missing else []


def _zero(numbers: Gradients) -> list[Flag]:
    verdicts = {k: _zero_verdict(numbers, numbers.zero, k) for k in numbers.reachable}
    level: Level = "failure" if "yes" in verdicts.values() else "warning"
    found = [k for k, verdict in verdicts.items() if verdict == ("yes" if level == "failure" else "undecided")]
    if not found:
        return []
    shares = {k: share for k in found if (share := numbers.zero[k]) is not None}
    largest = f"{100 * max(shares.values()):.0f} %"
    message = f"the loss has no input gradient on up to {largest} of the samples that the exit gets right; "
    if level == "warning":
        message += TOO_FEW
    elif all(numbers.zero_margin[k] is not None and _zero_verdict(numbers, numbers.zero_margin, k) == "no" for k in found):
        message += "the cross-entropy is saturated, but the margin has a gradient: attack with --loss margin and --attack single"
    else:
        message += (
            "the margin has none either, so the number is not valid: replace the gradient of what masks it by a differentiable "
            "approximation, with the same forward pass (Athalye et al. 2018)"
        )
    return [Flag("zero gradients", level, {f"exit {k + 1}": share for k, share in shares.items()}, message, exits_text(found))]


def _saturated(numbers: Gradients) -> list[Flag]:
    verdicts = _gate_verdicts(numbers)
    level: Level = "warning" if "yes" in verdicts.values() else "info"
    found = [k for k, verdict in verdicts.items() if verdict == ("yes" if level == "warning" else "undecided")]
    if not found:
        return []
    shares = {k: share for k in found if (share := numbers.saturated[k]) is not None}
    message = f"on up to {100 * max(shares.values()):.0f} % of the samples the gate is so confident that its gradient vanishes; "
    message += (
        TOO_FEW
        if level == "info"
        else (
            "slowdown attacks follow that gradient, so the cost under slowdown is not valid: it may be higher; for the accuracy, "
            "add --attack adaptive, which follows the gate on the scale of logits, and single"
        )
    )
    return [Flag("saturated gates", level, {f"gate {k + 1}": share for k, share in shares.items()}, message, exits_text(found))]

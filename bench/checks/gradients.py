"""Checks that the loss of every exit, and every gate, has a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from exitbench.attacks.objectives import Loss, Margin
from exitbench.checks.flag import Flag, exits_text
from exitbench.checks.subject import Subject
from exitbench.models.policies import Policy
from exitbench.models.within_reach import exits_within_reach
from exitbench.store.trust_result import Gradients

ZERO_SHARE = 0.05
"""Largest share of samples without a gradient that is put down to chance (one of 32); a sound model has none."""

SATURATED = 1e-4
"""A gate is saturated if moving any logit by 1 moves its slack by less than this share of the threshold.

The attack weighs gates against margins, whose gradients are of order 0.01 to 1; a gate that is a hundred times flatter has no
effect. The slack's gradient is about H/T for an entropy H far below its threshold T.
"""

SATURATED_SHARE = 0.5
"""Share of saturated samples above which the gate counts as saturated, rather than some confident samples."""


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
    )


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
    """Return the failures ``zero gradients`` and ``missing gradients``, and the warning ``saturated gates``."""
    found = []
    missing = [k for k in numbers.reachable if numbers.zero[k] is None]
    zero = {k: share for k in numbers.reachable if (share := numbers.zero[k]) is not None and share > ZERO_SHARE}
    vanishing = list(zero)
    if missing:
        message = (
            "the logits do not depend differentiably on the image, so gradient attacks end in errors; "
            "remove what cuts the graph (detach, no_grad, numpy)"
        )
        found.append(Flag("missing gradients", "failure", {"exits": len(missing)}, message, exits_text(missing)))
    if vanishing:
        largest = max(zero.values())
        margins = [numbers.zero_margin[k] for k in vanishing]
        cure = (
            "the loss is saturated, but the margin has a gradient: attack with --loss margin"
            if all(share is not None and share <= ZERO_SHARE for share in margins)
            else "the margin has none either: attack a differentiable approximation of what masks it (Athalye et al. 2018)"
        )
        message = f"the loss has no input gradient on up to {100 * largest:.0f} % of the samples that the exit has right; {cure}"
        found.append(
            Flag("zero gradients", "failure", {f"exit {k + 1}": zero[k] for k in vanishing}, message, exits_text(vanishing))
        )
    saturated = {k: share for k, share in enumerate(numbers.saturated) if share is not None and share > SATURATED_SHARE}
    if saturated:
        message = (
            f"the gate is so sure of up to {100 * max(saturated.values()):.0f} % of the samples that its gradient vanishes, and "
            "attacks on the exit rule do not see it; rely more on the single:k and black-box attacks here"
        )
        named = {f"gate {k + 1}": share for k, share in saturated.items()}
        found.append(Flag("saturated gates", "warning", named, message, exits_text(saturated)))
    return found

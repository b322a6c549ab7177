"""Certification: every candidate is checked and re-scored with the plain fp32 model, whatever the attack claims."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.regions import ThreatModel
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.on_grid import nearest
from exitbench.store.cell import TOLERANCE


class NotCertified(ValueError):
    """A candidate is not a valid adversarial image; the message says what is wrong and by how much."""


@dataclass(frozen=True)
class Certified:
    """A valid batch of candidates with its scores.

    Attributes:
        x_adv: The candidates ``(B, C, H, W)``; the clean image where the network has no finite logits on a candidate.
        logits: Logits ``(K, B, classes)`` of all exits, fp32.
        distances: Distances ``(B,)`` from the clean images, in the threat model's norm.
        undefined: ``(B,)`` bool, whether the network had no finite logits on the candidate.
    """

    x_adv: Tensor
    logits: Tensor
    distances: Tensor
    undefined: Tensor


@torch.no_grad()
def certify(model: EarlyExitNet, x: Tensor, x_adv: Tensor, threat_model: ThreatModel, *, bounded: bool = True) -> Certified:
    """Check that ``x_adv`` is finite, in the box and in the ball of the threat model around ``x``, and compute all exits' logits.

    In a threat model with a grid, the candidates are then rounded to it, in the ball, and what comes of that is judged. Where a
    ball has no image of the grid, the clean image takes the candidate's place.

    Args:
        model: The plain fp32 network, in evaluation mode.
        x: Clean images ``(B, C, H, W)``.
        x_adv: Candidates of the same shape.
        threat_model: The threat model.
        bounded: Whether candidates must lie in the ball; those of an unbounded attack are reported with their distance.

    Raises:
        NotCertified: If a candidate is invalid, or the model's logits are not finite on a clean image either.
    """
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        found = f"{tuple(x_adv.shape)} of {x_adv.dtype}" if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise NotCertified(f"the attack returned {found}, expected {tuple(x.shape)} of {x.dtype}")
    if bad := int((~torch.isfinite(x_adv)).flatten(1).any(1).sum()):
        raise NotCertified(f"{bad} of {len(x)} images hold NaN or infinite pixels")
    if bad := int(((x_adv < 0) | (x_adv > 1)).flatten(1).any(1).sum()):
        raise NotCertified(f"{bad} of {len(x)} images leave the box [0, 1]")
    distances = _distances(x, x_adv, threat_model, bounded=bounded)
    if threat_model.grid is not None:
        x_adv = threat_model.onto_grid(x_adv, x) if bounded else nearest(x_adv, threat_model.grid)
        distances = _distances(x, x_adv, threat_model, bounded=bounded)
    logits = model(x_adv)
    undefined = ~torch.isfinite(logits).all(-1).all(0)
    if not undefined.any():
        return Certified(x_adv, logits, distances, undefined)
    on_clean = model(x)
    if not torch.isfinite(on_clean[:, undefined]).all():
        raise NotCertified("the model returns NaN or infinite logits on the attack's images")
    return Certified(
        torch.where(undefined.view(-1, *[1] * (x.ndim - 1)), x, x_adv),
        torch.where(undefined[None, :, None], on_clean, logits),
        torch.where(undefined, torch.zeros_like(distances), distances),
        undefined,
    )


def _distances(x: Tensor, x_adv: Tensor, threat_model: ThreatModel, *, bounded: bool) -> Tensor:
    """Return the distances ``(B,)`` from the clean images, checked where candidates must lie in the ball."""
    distances = threat_model.distance(x_adv, x)
    excess = distances - threat_model.eps
    if bounded and (bad := int((excess > TOLERANCE[threat_model.norm]).sum())):
        raise NotCertified(
            f"{bad} of {len(x)} images leave the {threat_model.norm} ball of {threat_model.eps:.6g}, by up to {excess.max():.3g}"
        )
    return distances

"""The judge: every candidate is checked and re-scored with the plain fp32 model, whatever the attack says of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.attacks.regions import ThreatModel
from exitbench.models.early_exit import EarlyExitNet
from exitbench.store.cell import TOLERANCE


class NotCertified(ValueError):
    """A candidate that is not a valid adversarial image; the message says what is wrong and by how much."""


@dataclass(frozen=True)
class Certified:
    """A valid batch of candidates, scored.

    Attributes:
        logits: fp32 ``(K, B, classes)`` of all exits.
        distances: ``(B,)`` in the threat model's norm.
    """

    logits: Tensor
    distances: Tensor


@torch.no_grad()
def certify(model: EarlyExitNet, x: Tensor, x_adv: Tensor, threat_model: ThreatModel, *, bounded: bool = True) -> Certified:
    """Check that ``x_adv`` is finite, in the box and in ``ball`` around ``x``, and compute all exits' logits.

    Args:
        bounded: whether the attack is bound to the ball; one that is not is told by the distance it reached.

    Raises:
        NotCertified: if it is not, or if the model's logits are not numbers there.
    """
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        found = f"{tuple(x_adv.shape)} of {x_adv.dtype}" if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise NotCertified(f"the attack returned {found}, expected {tuple(x.shape)} of {x.dtype}")
    if bad := int((~torch.isfinite(x_adv)).flatten(1).any(1).sum()):
        raise NotCertified(f"{bad} of {len(x)} images hold NaN or infinite pixels")
    if bad := int(((x_adv < 0) | (x_adv > 1)).flatten(1).any(1).sum()):
        raise NotCertified(f"{bad} of {len(x)} images leave the box [0, 1]")
    distances = threat_model.distance(x_adv, x)
    excess = distances - threat_model.eps
    if bounded and (bad := int((excess > TOLERANCE[threat_model.norm]).sum())):
        raise NotCertified(
            f"{bad} of {len(x)} images leave the {threat_model.norm} ball of {threat_model.eps:.6g}, by up to {excess.max():.3g}"
        )
    logits = model(x_adv)
    if not torch.isfinite(logits).all():
        raise NotCertified("the model returns NaN or infinite logits on the attack's images")
    return Certified(logits, distances)

"""Check that the search model, which attacks search on, agrees with the plain model, which decides."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from exitbench.checks.flag import Flag
from exitbench.checks.subject import Subject
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import deployed_logits
from exitbench.models.search_model import DIFFERENCE, Precision, relative_difference
from exitbench.store.trust_result import SearchModelDifference

CHANGED: Mapping[Precision, float] = {"fp32": 0.02, "bf16": 0.1}
"""Largest share of changed decisions that rounding at a threshold explains: one of 64 in fp32."""


@torch.no_grad()
def measure(subject: Subject, search_model: EarlyExitNet, x_adv: Tensor, precision: Precision) -> SearchModelDifference:
    """Compare the search model with the plain model on the clean images and on ``x_adv``."""
    differences, changed = [], []
    for images in (subject.x, x_adv):
        plain, quick = subject.model(images), search_model(images)
        differences.append(relative_difference(quick, plain))
        classes = [deployed_logits(logits, subject.policy)[0].argmax(-1) for logits in (plain, quick)]
        changed.append(int((classes[0] != classes[1]).sum()))
    return SearchModelDifference(
        difference=max(differences),
        changed_clean=changed[0],
        changed_adversarial=changed[1],
        samples=len(subject.x),
        precision=precision,
    )


def flags(numbers: SearchModelDifference) -> list[Flag]:
    """Return the failure ``search-model mismatch``: adversarial images for the search model do not transfer to the plain one."""
    changed = (numbers.changed_clean + numbers.changed_adversarial) / (2 * numbers.samples)
    precision = numbers.precision
    if numbers.difference <= DIFFERENCE[precision] and changed <= CHANGED[precision]:
        return []
    message = (
        f"the logits of the search model differ from the plain model's by {numbers.difference:.2g} of their spread, and "
        f"{numbers.changed_clean} clean and {numbers.changed_adversarial} attacked of {numbers.samples} images get "
        "another prediction; attacks miss their target: search on the plain model, with --precision fp32"
    )
    return [Flag("search-model mismatch", "failure", {"difference": numbers.difference, "changed": changed}, message)]

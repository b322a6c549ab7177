"""Requests in another unit than ours, and networks that know nothing: what was probably meant is said before any work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import torch

from exitbench.attacks.regions import Norm
from exitbench.data.split import Batch
from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, SureAbove, deployed_logits
from exitbench.models.rules.fit import innermost
from exitbench.models.rules.registry import name_of
from exitbench.stats.proportions import at_least
from exitbench.target.target import check_model

LEVEL = 0.05
"""Of the test that tells a network from a guess."""


def check_length(what: str, length: float, norm: Norm, n_values: int) -> None:
    """Refuse a radius or a step longer than any image is far from any other.

    Args:
        what: its name, for the message.
        length: in ``norm``, for pixels in [0, 1].
        norm: of the threat model.
        n_values: of an image: channels times pixels.

    Raises:
        UserError: it is longer than the diagonal of the box of all images: 1 in Linf, ``sqrt(n_values)`` in L2.
    """
    diagonal = 1.0 if norm == "Linf" else math.sqrt(n_values)
    if length > diagonal:
        hint = f"; was {length:g}/255 meant?" if length <= 255 * diagonal else ""
        raise UserError(
            f"{what} = {length:g}: pixels are in [0, 1], and no two images are further apart than {diagonal:.4g} in {norm}{hint}"
        )


def check_thresholds(policy: Policy) -> None:
    """Refuse shares of probability that none reaches; infinity, for an exit that is never taken, is allowed.

    Raises:
        UserError: a finite threshold of a rule on such shares, as ``confidence`` and ``vote``, is above 1.
    """
    rule = innermost(policy)
    if not isinstance(rule, SureAbove) or not rule.is_share:
        return
    name = name_of(rule) or type(rule).__name__
    most = 1 if rule.calibration is None else 1 + 1e-4  # the share of a held-out image may be rounded up
    high = [threshold for threshold in rule.thresholds if most < threshold < math.inf]
    if not high:
        return
    hint = ""
    if max(high) <= 100:
        meant = [threshold / 100 if threshold in high else threshold for threshold in rule.thresholds]
        hint = f"; was {name}:{','.join(f'{threshold:g}' for threshold in meant)} meant?"
    raise UserError(f"{name} {high[0]:g}: probabilities are in [0, 1], and inf is for an exit that is never taken{hint}")


@torch.no_grad()
def check_clean(
    model: EarlyExitNet, batches: Iterable[Batch], n_classes: int | None, policy: Policy, dataset: str = "the dataset"
) -> str | None:
    """Run the clean images, refuse a model that cannot be evaluated on them, and return what is to be said of its accuracy.

    Args:
        model: the network.
        batches: all images of the evaluation.
        n_classes: of the dataset, where it is known.
        policy: the deployed rule.
        dataset: what messages call it.

    Raises:
        UserError: see ``exitbench.target.target.check_model``.
    """
    right, labels = 0, Counter[int]()
    for batch in batches:
        logits, _ = deployed_logits(check_model(model, batch.x, batch.y, n_classes, dataset).cpu(), policy)
        right += int((logits.argmax(-1) == batch.y).sum())
        labels.update(batch.y.tolist())
    return chance_note(right, labels.total(), max(labels.values()))


def chance_note(right: int, n: int, most: int) -> str | None:
    """Return what is to be said of a network that cannot be told from a guess; None where it can.

    A guess names the most frequent label for every image. The network is told from it by an exact binomial test at ``LEVEL``, or,
    where the images are too few for the test, by being right on all, or on more than half of what a guess gets wrong.

    Args:
        right: clean images that the deployed network is right on.
        n: all of them.
        most: those of the most frequent label.
    """
    if right == n or 2 * right > n + most or at_least(right, n, most / n) < LEVEL:
        return None
    return (
        f"clean accuracy is {100 * right / n:.4g} %, no better than always naming one class ({100 * most / n:.4g} %; exact "
        f"binomial test at {100 * LEVEL:g} %): usually the normalisation is missing (the network gets images in [0, 1] and must "
        "normalise them itself), the classes are in another order than the dataset's, or no weights were loaded"
    )

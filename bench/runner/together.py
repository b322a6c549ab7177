"""Generates the candidates of attacks that differ in the exit alone as one batch, where a GPU would be idle without."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch

from exitbench.attacks.base import Attack
from exitbench.attacks.together import alike, generate_together
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.user_code import contained
from exitbench.runner.generate import Generated, Work, divided, network_for, noise_of
from exitbench.runner.passes import Passes, counted

ROWS = 1024
"""Images of a batch up to which launching takes longer than computing."""

DEVICES = ("cuda",)
"""Kinds of devices that are idle on small batches."""

_log = logging.getLogger(__name__)


def generate_alike(attack: Attack, others: Sequence[Attack], model: EarlyExitNet, works: Sequence[Work], seed: int) -> None:
    """Generate the candidates of ``attack`` and of those of ``others`` that are like it, if that is one small batch.

    What fails here is left to each attack alone.

    Args:
        attack: An attack that has not been generated.
        others: Attacks that will be.
        model: The network that attacks search on.
        works: The slices.
        seed: Seed of the evaluation.
    """
    if works[0].x.device.type not in DEVICES:
        return
    attacks = [each for each in alike(attack, others) if not any(each in work.generated for work in works)]
    sizes = [len(work.y) for work in works]
    if len(attacks) < 2 or len(attacks) * sum(sizes) > ROWS:
        return
    x, y, began = torch.cat([work.x for work in works]), torch.cat([work.y for work in works]), time.perf_counter()
    model = network_for(attack, model).eval()
    try:
        with counted(model) as passes, contained():
            found = generate_together(attacks, model, x, y, noise_of(works, seed))
    except Exception as error:  # noqa: BLE001 - each attack is then run alone, and what it raises is its result
        _log.info("%d attacks as one batch failed", len(attacks), exc_info=error)
        return
    seconds = (time.perf_counter() - began) / len(attacks)
    shares = [divided(total // len(attacks), sizes) for total in (passes.forwards, passes.backwards)]
    for each, x_adv in zip(attacks, found, strict=True):
        for work, rows, forwards, backwards in zip(works, torch.split(x_adv, sizes), *shares, strict=True):
            work.generated[each] = Generated(rows, Passes(forwards, backwards), seconds * len(work.y) / len(y))

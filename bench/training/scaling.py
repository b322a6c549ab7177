"""The batch size of a machine, and the learning rate that goes with it."""

from __future__ import annotations

import math
from dataclasses import replace

from exitbench.training.recipe import Recipe

FEWEST_STEPS = 50
"""Smallest number of steps per epoch that a GPU's own choice of the batch size leaves."""


def scaled(recipe: Recipe, batch_size: int) -> Recipe:
    """Return the recipe for batches of another size: the highest learning rate grows or shrinks in proportion.

    This is the linear scaling rule with a gradual warm-up (Goyal et al., "Accurate, Large Minibatch SGD", 2017, sections 2.1 and
    2.2): a rate that grows starts where that of the recipe does, as fresh weights are the least tolerant. Beyond
    ``scales_to`` times the recipe's batch size the rule does not hold, and the rate grows with the square root, which keeps the
    noise of the gradient as it is (Krizhevsky, 2014, section 5); with Adam, whose steps have a length of their own, it does so
    from the start.
    """
    if batch_size == recipe.batch_size:
        return recipe
    growth = batch_size / recipe.batch_size
    linear = recipe.scales_to
    factor = growth if growth <= linear else linear * math.sqrt(growth / linear)
    if recipe.optimizer == "adam":
        factor = math.sqrt(growth)
    first = recipe.starts_at if factor > 1 else recipe.first_lr and recipe.first_lr * factor
    return replace(recipe, batch_size=batch_size, peak_lr=recipe.peak_lr * factor, first_lr=first)


def roomy(recipe: Recipe, n_images: int) -> int:
    """Return the batch size for a GPU: up to ``scales_to`` times the recipe's, while an epoch keeps ``FEWEST_STEPS`` steps.

    With Adam it is the recipe's.
    """
    if recipe.optimizer == "adam":
        return recipe.batch_size
    growth = min(int(recipe.scales_to), n_images // (FEWEST_STEPS * recipe.batch_size))
    return recipe.batch_size * max(growth, 1)

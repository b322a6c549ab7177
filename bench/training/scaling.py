"""The batch size of a machine, and the learning rate that goes with it."""

from __future__ import annotations

import math
from dataclasses import replace

from exitbench.training.recipe import Recipe

LINEAR = 4.0
"""Growth of the batch up to which the learning rate grows as much; beyond it, by the square root of what comes on top."""

FEWEST_STEPS = 50
"""Smallest number of steps per epoch that a GPU's own choice of the batch size leaves."""


def scaled(recipe: Recipe, batch_size: int) -> Recipe:
    """Return the recipe for batches of another size: the highest learning rate grows or shrinks in proportion.

    This is the linear scaling rule (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.1); the warm-up that it
    needs is the rise of the one-cycle schedule. Beyond ``LINEAR`` times the recipe's batch size the rule does not hold, and
    the rate grows with the square root, which keeps the noise of the gradient as it is (Krizhevsky, 2014, section 5); with
    Adam, whose steps have a length of their own, it does so from the start.
    """
    if batch_size == recipe.batch_size:
        return recipe
    growth = batch_size / recipe.batch_size
    factor = growth if growth <= LINEAR else LINEAR * math.sqrt(growth / LINEAR)
    if recipe.optimizer == "adam":
        factor = math.sqrt(growth)
    return replace(recipe, batch_size=batch_size, peak_lr=recipe.peak_lr * factor)


def roomy(recipe: Recipe, n_images: int) -> int:
    """Return the batch size for a GPU: up to ``LINEAR`` times the recipe's, while an epoch keeps ``FEWEST_STEPS`` steps.

    With Adam it is the recipe's.
    """
    if recipe.optimizer == "adam":
        return recipe.batch_size
    growth = min(int(LINEAR), n_images // (FEWEST_STEPS * recipe.batch_size))
    return recipe.batch_size * max(growth, 1)

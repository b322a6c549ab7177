"""The guard against catastrophic overfitting: accuracy under PGD on held-out images after every epoch.

Single-step adversarial training can collapse within an epoch: accuracy under its own attack soars while accuracy under
PGD falls to nothing (Wong, Rice & Kolter, ICLR 2020, section 5; Andriushchenko & Flammarion, NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import Ball
from exitbench.models.multi_exit import MultiExitNet
from exitbench.training.images import Images, resized
from exitbench.training.recipe import Crafting

N_WATCHED = 256
STEPS = 10
COLLAPSED = 0.5
"""An epoch has collapsed when accuracy under PGD fell below this part of the best so far in its phase, ..."""
WORTH_WATCHING = 0.15
"""... once that best was above this: accuracies near chance fluctuate."""


class Guard:
    """Measures clean accuracy and accuracy under PGD-10 (``average``) of the last exit on the first held-out images."""

    def __init__(self, held_out: Images, ball: Ball) -> None:
        rows = torch.arange(min(N_WATCHED, len(held_out)))
        self.x, self.y = held_out.batch(rows)
        self.noise = Noise(0, tuple(rows.tolist()))
        self.attack = PGD(Objective(CE(), Mean()), ball, STEPS, ball.eps / 4, keep="last")

    def measure(self, model: MultiExitNet, image_size: int | None) -> tuple[float, float]:
        """Clean and attacked accuracy of ``model`` on images of ``image_size``; the model is left in evaluation mode."""
        x = resized(self.x, image_size)
        model.eval()
        model.requires_grad_(False)
        x_adv = self.attack(model, x, self.y, noise=self.noise)
        with torch.no_grad():
            clean, attacked = (float((model(images)[-1].argmax(-1) == self.y).float().mean()) for images in (x, x_adv))
        model.requires_grad_(True)
        return clean, attacked


def collapsed(attacked: float, earlier: Sequence[float]) -> bool:
    """Whether accuracy under PGD has collapsed against that of the earlier epochs of the phase."""
    best = max(earlier, default=0.0)
    return best > WORTH_WATCHING and attacked < COLLAPSED * best


def stepped_down(crafting: Crafting, times: int) -> Crafting:
    """The crafting after ``times`` collapses: each time twice the steps, each of 5/8 the length, and within the ball.

    More and shorter steps are what single-step training lacks when it collapses; 5/8 lets them still cross the ball.
    """
    if not times:
        return crafting
    return replace(
        crafting, steps=crafting.steps * 2**times, step=crafting.step * 0.625**times, start=min(crafting.start, 1.0), bounded=True
    )

"""The guard against catastrophic overfitting: it measures accuracy under PGD on held-out images after every epoch.

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
from exitbench.attacks.regions import ThreatModel
from exitbench.models.multi_exit import MultiExitNet
from exitbench.training.images import Images, resized
from exitbench.training.recipe import Crafting

N_WATCHED = 256
STEPS = 10
COLLAPSED = 0.5
"""Share of the best accuracy under PGD in its phase below which an epoch counts as collapsed."""
WORTH_WATCHING = 0.15
"""Best accuracy from which a collapse is looked for: accuracies near chance fluctuate."""


class Guard:
    """A measurement of the last exit's accuracy, clean and under PGD-10 (``average``), on the first held-out images."""

    def __init__(self, held_out: Images, ball: ThreatModel) -> None:
        rows = torch.arange(min(N_WATCHED, len(held_out)))
        self.x, self.y = held_out.batch(rows)
        self.noise = Noise(0, tuple(rows.tolist()))
        self.attack = PGD(Objective(CE(), Mean()), ball, STEPS, ball.eps / 4, keep="last")

    def measure(self, model: MultiExitNet, image_size: int | None) -> tuple[float, float]:
        """Return the clean and the attacked accuracy on images of ``image_size``; the model is left in evaluation mode."""
        x = resized(self.x, image_size)
        model.eval()
        model.requires_grad_(False)
        x_adv = self.attack(model, x, self.y, noise=self.noise)
        with torch.no_grad():
            clean, attacked = (float((model(images)[-1].argmax(-1) == self.y).float().mean()) for images in (x, x_adv))
        model.requires_grad_(True)
        return clean, attacked


def collapsed(attacked: float, earlier: Sequence[float]) -> bool:
    """Return whether accuracy under PGD has collapsed, compared with the earlier epochs of the phase."""
    best = max(earlier, default=0.0)
    return best > WORTH_WATCHING and attacked < COLLAPSED * best


def stepped_down(crafting: Crafting, times: int) -> Crafting:
    """Return the crafting after ``times`` collapses: each doubles the steps, shortens them to 5/8, and bounds them to the ball.

    Single-step training collapses for lack of more, shorter steps; at 5/8 of the length they still cross the ball.
    """
    if not times:
        return crafting
    return replace(
        crafting, steps=crafting.steps * 2**times, step=crafting.step * 0.625**times, start=min(crafting.start, 1.0), bounded=True
    )

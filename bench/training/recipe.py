"""Training recipes, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attacks.base import Attack
from attacks.objectives import Only
from attacks.presets import Settings, expand
from attacks.regions import Ball
from models.policies import FixedExit
from models.registry import UnknownName

Defence = Literal["standard", "main", "average", "max_average"]


@dataclass(frozen=True)
class Recipe:
    """How one weight file is made.

    The loss is the paper's: half the sum over exits of the cross-entropy on clean inputs plus half
    the sum on adversarial inputs, in separate forwards ("Triple Wins", ICLR 2020, equation 3);
    ``standard`` has the clean half alone, at full weight.

    Attributes:
        model: registered architecture.
        dataset: what it is trained on.
        defence: which attack makes the adversarial half: on the last exit (``main``), ``average`` or ``max_average``.
        ball: threat model of that attack.
        attack_steps: PGD steps of that attack, from a random start; the last iterate is used.
        attack_step_size: length of a step in the ball's norm.
        epochs: passes over the train split.
        batch_size: samples a step.
        peak_lr: highest learning rate of the one-cycle schedule.
        momentum, weight_decay: of SGD.
    """

    model: str
    dataset: str
    defence: Defence
    ball: Ball
    attack_steps: int
    attack_step_size: float
    epochs: int
    batch_size: int
    peak_lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4

    @property
    def name(self) -> str:
        """The name typed on the command line, that of the weight file."""
        return f"{self.model}-{self.dataset}-{self.defence}"

    def attack(self, n_exits: int) -> Attack | None:
        """The attack of the defence on a network of ``n_exits`` exits."""
        settings = Settings(self.ball, self.attack_steps, self.attack_step_size, keep="last")
        if self.defence == "standard":
            return None
        if self.defence == "main":
            return settings.ascend(Only(n_exits))
        attacks, _ = expand([self.defence], n_exits, settings, FixedExit(n_exits))
        (attack,) = attacks.values()
        return attack


_DIGITS = Ball("Linf", 0.2)


def _digits(model: str, *, peak_lr: float, epochs: int) -> Recipe:
    return Recipe(model, "digits", "average", _DIGITS, 4, 0.08, epochs, 64, peak_lr)


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        _digits("rdi_smallcnn", peak_lr=0.02, epochs=40),
        _digits("rdi_resnet38", peak_lr=0.02, epochs=40),
        _digits("resnet38", peak_lr=0.1, epochs=40),
    )
}


def recipe_names() -> list[str]:
    """All named recipes."""
    return list(_RECIPES)


def named_recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UnknownName: with suggestions.
    """
    if name not in _RECIPES:
        raise UnknownName("recipe", name, _RECIPES)
    return _RECIPES[name]

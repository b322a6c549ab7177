"""What a training recipe says. The recipes themselves are in ``exitbench.training.recipes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from exitbench.attacks.regions import Ball
from exitbench.models.spec import describe

Against = Literal["main", "average", "max_average", "sampled", "policy"]
Schedule = Literal["one_cycle", "steps"]


@dataclass(frozen=True)
class Crafting:
    """How the adversarial training images are made: sign steps from a random start, the last iterate kept.

    Attributes:
        against: what is ascended. ``main``: the loss of the last exit. ``average``: the mean loss over the exits.
            ``max_average``: every exit in turn, then per image the result with the highest mean loss ("Triple Wins",
            section 3.3). ``sampled``: for half of the images the mean loss, for the others the loss of an exit drawn at
            random, stages behind it not run: a stand-in for ``max_average`` at the price of one attack.
            ``policy``: the expected loss of the deployed rule, its gates softened.
        steps: gradient steps.
        step: length of a step in units of the ball's radius.
        start: the random start is uniform within this many radii.
        bounded: whether the result is brought back into the ball. N-FGSM (de Jorge et al., NeurIPS 2022) is one step of
            length 1 from a start of 2 that is not.
        temperature: of the softened gates; only ``policy`` has them.
        deferral: weight of the expected exit number, as a share of all exits, beside the loss that ``policy`` ascends: images
            that are deferred cost more and are judged by the exits that the attack has not looked at.
    """

    against: Against
    steps: int = 1
    step: float = 1.0
    start: float = 2.0
    bounded: bool = False
    temperature: float = 0.3
    deferral: float = 0.0

    def __post_init__(self) -> None:
        if self.against not in get_args(Against):
            raise ValueError(f"no such attack to train against: {self.against!r}; known: {', '.join(get_args(Against))}")
        if self.deferral and self.against != "policy":
            raise ValueError(f"only crafting against the policy can pull at its gates, not against {self.against!r}")
        if self.steps < 1 or self.step <= 0 or self.start < 0 or self.temperature <= 0:
            raise ValueError(f"need at least one step of a positive length, a start >= 0 and a temperature > 0: {self}")


@dataclass(frozen=True)
class Phase:
    """A run of epochs trained alike.

    Attributes:
        epochs: passes over the training images.
        crafting: how attacked images are made; None for clean training.
        attacked_share: None for the paper's loss, half the loss on the clean and half on the attacked image in separate
            forwards ("Triple Wins", equation 3). A number in (0, 1] shows each image once, attacked with this probability:
            one forward instead of two, and 0.5 is the paper's loss in expectation.
        image_size: images are shrunk to this many pixels a side; None leaves them as they are.
        deployed_weight: weight of the deployed rule's own loss, ``-log`` of the probability that it gives to the label with
            softened gates, beside the sum over the exits: exits are asked to be right where they are taken, and gates to
            stay shut where they are not.
        agreement: weight of the divergence of every exit's prediction from the last exit's, beside the sum over the exits: who
            may choose the exit gains nothing where all exits fall for the same images.
    """

    epochs: int
    crafting: Crafting | None = None
    attacked_share: float | None = None
    image_size: int | None = None
    deployed_weight: float = 0.0
    agreement: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"a phase needs at least one epoch, got {self.epochs}")
        if self.attacked_share is not None and not 0 < self.attacked_share <= 1:
            raise ValueError(f"attacked_share is a probability above 0, got {self.attacked_share}")
        if self.deployed_weight < 0 or self.agreement < 0:
            raise ValueError(f"deployed_weight and agreement are at least 0, got {self.deployed_weight} and {self.agreement}")

    @property
    def needs_policy(self) -> bool:
        """Whether training alike takes the exit policy."""
        return self.deployed_weight > 0 or (self.crafting is not None and self.crafting.against == "policy")

    def work(self, n_exits: int, side: int) -> float:
        """Relative duration of an epoch: an update of every image counts 1, an input gradient 3/4 of it."""
        crafted = 0.0
        if self.crafting:
            runs = n_exits if self.crafting.against == "max_average" else 1
            crafted = 0.75 * self.crafting.steps * runs * (self.attacked_share or 1)
        updates = 2 if self.crafting and self.attacked_share is None else 1
        return (updates + crafted) * ((self.image_size or side) / side) ** 2


@dataclass(frozen=True)
class Pruning:
    """Weights removed for good while training goes on, those of the smallest magnitude first, the same share in every layer.

    Attributes:
        sparsity: share of each layer's weights that are zero in the end; the first layer and the classifiers stay whole.
        epochs: over which it gets there, quickly at first: ``sparsity * (1 - (1 - t / T)^3)`` after t of their T steps
            (Zhu & Gupta, "To prune, or not to prune", 2017, equation 1). 0 for all at once, before the first step.
    """

    sparsity: float
    epochs: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is a share of the weights, between 0 and 1, got {self.sparsity}")
        if self.epochs < 0:
            raise ValueError(f"pruning takes a number of epochs >= 0, got {self.epochs}")

    def share(self, step: int, steps_per_epoch: int) -> float:
        """Share of each layer's weights that are removed once ``step`` steps are made."""
        rising = self.epochs * steps_per_epoch
        if step >= rising:
            return self.sparsity
        return self.sparsity * (1 - (1 - step / rising) ** 3)


@dataclass(frozen=True)
class Recipe:
    """How one weight file is made: phases of training with one learning-rate schedule over all of them.

    Attributes:
        model: registered architecture.
        dataset: what it is trained on.
        training: short name of the training, part of the weight file's name.
        ball: threat model of the crafting.
        phases: what is trained on, in order.
        batch_size: samples a step.
        peak_lr: highest learning rate.
        schedule: ``one_cycle`` (up for 30 % of all steps, then down to nothing: Smith & Topin, 2017) or ``steps`` (a tenth
            after half and again after three quarters of all steps, as in the paper).
        momentum, weight_decay, nesterov: of SGD.
        crop_padding: pixels by which images are padded before a random crop; 0 for none.
        flip: whether half of the images are mirrored.
        after: training whose weights of the same model and dataset this one starts from; None for fresh ones.
        pruning: which weights are removed on the way; None for none.
    """

    model: str
    dataset: str
    training: str
    ball: Ball
    phases: tuple[Phase, ...]
    batch_size: int
    peak_lr: float
    schedule: Schedule = "one_cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    crop_padding: int = 0
    flip: bool = False
    after: str | None = None
    pruning: Pruning | None = None

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a recipe needs at least one phase")

    @property
    def name(self) -> str:
        """The name typed on the command line, that of the weight file."""
        return f"{self.model}-{self.dataset}-{self.training}"

    @property
    def epochs(self) -> int:
        """Passes over the training images in all phases."""
        return sum(phase.epochs for phase in self.phases)

    def phase(self, epoch: int) -> Phase:
        """The phase that ``epoch``, counted from 0, is in."""
        return self._at(epoch)[1]

    def phase_start(self, epoch: int) -> int:
        """The first epoch, counted from 0, of the phase that ``epoch`` is in."""
        return self._at(epoch)[0]

    def _at(self, epoch: int) -> tuple[int, Phase]:
        start = 0
        for phase in self.phases:
            if start <= epoch < start + phase.epochs:
                return start, phase
            start += phase.epochs
        raise ValueError(f"{self.name} has epochs 0..{self.epochs - 1}, asked for {epoch}")

    def work(self, n_exits: int, side: int) -> list[float]:
        """Relative duration of each epoch, on a network of ``n_exits`` exits for images of ``side`` pixels: for the time left."""
        return [phase.work(n_exits, side) for phase in self.phases for _ in range(phase.epochs)]

    def text(self) -> str:
        """One line for listings."""
        crafted = [phase.crafting for phase in self.phases if phase.crafting]
        against = " then ".join(dict.fromkeys(f"{c.against} ({c.steps} step{'s' * (c.steps > 1)})" for c in crafted))
        epochs = f"{self.epochs} epochs"
        pruned = f", {self.pruning.sparsity:.0%} of the weights pruned" if self.pruning else ""
        return f"{epochs}, {f'against {against}' if against else 'clean images alone'}{pruned}"

    def summary(self) -> Mapping[str, Any]:
        """All settings that are not at their defaults, as JSON data: a setting added later leaves old files as they are."""
        summary: dict[str, Any] = _non_default(self)
        return summary


def _non_default(setting: Any) -> Any:
    if isinstance(setting, tuple):
        return [_non_default(part) for part in setting]
    if not isinstance(setting, Recipe | Phase | Crafting | Pruning):
        return describe(setting)
    named = ((field, getattr(setting, field.name)) for field in fields(setting))
    return {field.name: _non_default(value) for field, value in named if field.default is MISSING or value != field.default}

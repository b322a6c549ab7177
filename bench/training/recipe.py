"""The settings of a training recipe. The named recipes are in ``exitbench.training.recipes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from exitbench.attacks.regions import ThreatModel
from exitbench.models.errors import InvalidValue
from exitbench.models.spec import describe
from exitbench.training.certified import Certified
from exitbench.training.distillation import Distillation

Against = Literal["main", "average", "max_average", "sampled", "policy"]
Schedule = Literal["one_cycle", "steps", "plateau"]
Optimizer = Literal["sgd", "adam"]
ExitWeights = Literal["equal", "sdn"]
Trained = Literal["all", "gates"]


@dataclass(frozen=True)
class Crafting:
    """The attack that crafts adversarial training images: sign steps from a random start; the last iterate is used.

    Attributes:
        against: The loss to ascend. ``main``: that of the last exit. ``average``: the mean over the exits. ``max_average``:
            that of every exit in turn; then, per image, the result with the highest mean loss is used ("Triple Wins", section
            3.3). ``sampled``: the mean loss for half of the images, and for the others that of an exit drawn at random, without
            running later stages; it approximates ``max_average`` at the cost of one attack. ``policy``: the expected loss of
            the deployed rule under soft gates.
        steps: Number of gradient steps.
        step: Length of a step, in radii of the ball.
        start: The random start is uniform within this many radii.
        bounded: Whether the result is projected into the ball. N-FGSM (de Jorge et al., NeurIPS 2022) is one step of length 1
            from a start of 2, unbounded.
        temperature: Temperature of the soft gates, for ``policy``.
        deferral: Weight of the expected exit number, as a share of all exits, beside the loss of ``policy``: images that leave
            later cost more and are decided by exits that the attack has not used.
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
            raise InvalidValue(f"no such attack to train against: {self.against!r}; known: {', '.join(get_args(Against))}")
        if self.deferral and self.against != "policy":
            raise InvalidValue(f"only crafting against the policy can pull at its gates, not against {self.against!r}")
        if self.steps < 1 or self.step <= 0 or self.start < 0 or self.temperature <= 0:
            raise InvalidValue(f"need at least one step of a positive length, a start >= 0 and a temperature > 0: {self}")


@dataclass(frozen=True)
class Phase:
    """A sequence of epochs with the same settings.

    Attributes:
        epochs: Passes over the training images.
        crafting: The attack that crafts training images; None for clean training.
        attacked_share: None for the loss of the paper: half on the clean and half on the attacked image, in separate forward
            passes ("Triple Wins", equation 3). With a number in (0, 1], each image is shown once, attacked with this
            probability: one forward pass instead of two, where 0.5 is the paper's loss in expectation.
        image_size: Side in pixels that images are shrunk to; None leaves them as they are.
        deployed_weight: Weight of the deployed rule's own loss, ``-log`` of the probability that it gives to the label under
            soft gates, beside the sum over the exits: exits learn to be right where they are taken, and gates to stay shut
            where they are not.
        agreement: Weight of the divergence of each exit's prediction from the last exit's, beside the sum over the exits: if
            all exits fail on the same images, an attacker gains nothing by choosing the exit.
        certified: Training on bounds of every exit over whole balls, in place of crafted images; None for none.
        distillation: Distillation from clean to attacked predictions; it needs both, so that ``attacked_share`` must be None.
    """

    epochs: int
    crafting: Crafting | None = None
    attacked_share: float | None = None
    image_size: int | None = None
    deployed_weight: float = 0.0
    agreement: float = 0.0
    distillation: Distillation | None = None
    certified: Certified | None = None

    def __post_init__(self) -> None:
        if self.certified and (self.crafting or self.image_size or self.deployed_weight or self.agreement):
            raise InvalidValue("certified training crafts no images, resizes none, and has a loss of its own")
        if self.epochs < 1:
            raise InvalidValue(f"a phase needs at least one epoch, got {self.epochs}")
        if self.attacked_share is not None and not 0 < self.attacked_share <= 1:
            raise InvalidValue(f"attacked_share is a probability above 0, got {self.attacked_share}")
        if self.distillation and (self.crafting is None or self.attacked_share is not None):
            raise InvalidValue("distillation needs each image both clean and attacked: a crafting, and no attacked_share")
        if self.deployed_weight < 0 or self.agreement < 0:
            raise InvalidValue(f"deployed_weight and agreement are at least 0, got {self.deployed_weight} and {self.agreement}")

    @property
    def needs_policy(self) -> bool:
        """Whether training in this phase needs the exit policy."""
        return self.deployed_weight > 0 or (self.crafting is not None and self.crafting.against == "policy")

    @property
    def trains_gates(self) -> bool:
        """Whether gates alone can be trained in this phase."""
        joint = self.certified or self.distillation or self.deployed_weight or self.agreement
        halves = self.crafting is not None and self.attacked_share is None
        return not (joint or halves)

    @property
    def harder(self) -> str:
        """What the second share of right training images is of: ``attacked`` ones, or ``certified`` for the radius trained on."""
        return "certified" if self.certified else "attacked"

    def work(self, n_exits: int, side: int) -> float:
        """Return the relative duration of an epoch: an update on every image counts 1, an input gradient 3/4."""
        crafted = 0.0
        if self.crafting:
            runs = n_exits if self.crafting.against == "max_average" else 1
            crafted = 0.75 * self.crafting.steps * runs * (self.attacked_share or 1)
        updates = 2 if self.crafting and self.attacked_share is None else 1
        if self.certified:
            updates = 4 if self.certified.bounds == "ibp" else 6
        return (updates + crafted) * ((self.image_size or side) / side) ** 2


@dataclass(frozen=True)
class Pruning:
    """A pruning schedule: the same share of weights is removed in every layer during training, smallest magnitudes first.

    Attributes:
        sparsity: Final share of zero weights in each layer; the first layer and the classifiers are not pruned.
        epochs: Number of epochs over which the share rises: to ``sparsity * (1 - (1 - t / T)^3)`` after t of T steps (Zhu &
            Gupta, "To prune, or not to prune", 2017, equation 1). With 0, all are removed before the first step.
    """

    sparsity: float
    epochs: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise InvalidValue(f"sparsity is a share of the weights, between 0 and 1, got {self.sparsity}")
        if self.epochs < 0:
            raise InvalidValue(f"pruning takes a number of epochs >= 0, got {self.epochs}")

    def share(self, step: int, steps_per_epoch: int) -> float:
        """Return the share of each layer's weights that are removed after ``step`` steps."""
        rising = self.epochs * steps_per_epoch
        if step >= rising:
            return self.sparsity
        return self.sparsity * (1 - (1 - step / rising) ** 3)


@dataclass(frozen=True)
class Recipe:
    """The recipe of a weight file: phases of training with one learning-rate schedule over all of them.

    Attributes:
        model: Name of the registered architecture.
        dataset: Name of the dataset to train on.
        training: Short name of the training, part of the weight file's name.
        ball: Threat model of the crafting.
        phases: The phases, in order.
        batch_size: Samples per step.
        peak_lr: Highest learning rate.
        schedule: ``one_cycle`` (up for 30 % of all steps, then down to zero: Smith & Topin, 2017) or ``steps`` (divided by ten
            after half and after three quarters of all steps, as in the paper), or ``plateau`` (up over 5 %, constant to 70 %,
            a cosine down to zero).
        optimizer: ``sgd``, or ``adam`` (Kingma & Ba, 2015) with its usual settings.
        momentum, weight_decay, nesterov: Settings of SGD; Adam takes the weight decay.
        crop_padding: Pixels by which images are padded before a random crop; 0 for no crop.
        flip: Whether half of the images are mirrored.
        after: Training whose weights to start from, on the same dataset: of the same model, or, as ``MODEL:TRAINING``, of the
            network that this model adds gates to; None for fresh weights.
        pruning: Pruning schedule; None for no pruning.
        clip: Largest norm of a step's gradient, which is shortened to it; None for any.
        exit_weights: Weights of the exits' losses. ``equal``: 1 each. ``sdn``: 1 for the last; for each other one a number that
            grows from 0.01 to its cost as a share of the last exit's, in proportion to the steps made (Kaya et al., ICML 2019,
            section 3.2).
        first_lr: Learning rate of the first step. None for that of the schedule: a 25th of ``peak_lr`` for ``one_cycle``,
            ``peak_lr`` itself for ``steps``, which else rises to it over the first five epochs.
        scales_to: Growth of the batch up to which the learning rate can be scaled in proportion; 1 for a network that is not
            stable at higher rates.
        trained: ``all`` parameters, or those of the ``gates`` alone, which learn to tell where their exits are right; the rest of
            the network then stays as it is, with its running statistics.
        rule: The exit rule for the card, as ``--policy`` takes it: a name, ``@``, and how it is set on held-out images; or its
            name, a colon, and its thresholds.
    """

    model: str
    dataset: str
    training: str
    ball: ThreatModel
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
    clip: float | None = None
    optimizer: Optimizer = "sgd"
    exit_weights: ExitWeights = "equal"
    first_lr: float | None = None
    scales_to: float = 4.0
    trained: Trained = "all"
    rule: str = "entropy@equal"

    def __post_init__(self) -> None:
        if not self.phases:
            raise InvalidValue("a recipe needs at least one phase")
        if self.exit_weights not in get_args(ExitWeights):
            raise InvalidValue(f"exit_weights is one of {', '.join(get_args(ExitWeights))}, got {self.exit_weights!r}")
        if not all(self.rule.partition("@" if "@" in self.rule else ":")):
            raise InvalidValue(f"rule is a name and how it is set, such as entropy@equal or margin:0.9,0.2, got {self.rule!r}")
        if self.trained not in get_args(Trained):
            raise InvalidValue(f"trained is one of {', '.join(get_args(Trained))}, got {self.trained!r}")
        if self.trained == "gates" and not all(phase.trains_gates for phase in self.phases):
            raise InvalidValue("gates are trained on crafted images, or on clean ones, with a loss of their own")
        if self.first_lr is not None and not 0 < self.first_lr <= self.peak_lr:
            raise InvalidValue(f"first_lr is above 0 and at most peak_lr, {self.peak_lr:g}; got {self.first_lr}")

    @property
    def name(self) -> str:
        """The recipe's name on the command line, which is also that of the weight file."""
        return f"{self.model}-{self.dataset}-{self.training}"

    @property
    def epochs(self) -> int:
        """Number of passes over the training images in all phases."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def starts_at(self) -> float:
        """The learning rate of the first step."""
        return self.first_lr or (self.peak_lr / 25 if self.schedule == "one_cycle" else self.peak_lr)

    def phase(self, epoch: int) -> Phase:
        """Return the phase of ``epoch``, counted from 0."""
        return self._at(epoch)[1]

    def phase_start(self, epoch: int) -> int:
        """Return the first epoch, counted from 0, of the phase of ``epoch``."""
        return self._at(epoch)[0]

    def _at(self, epoch: int) -> tuple[int, Phase]:
        start = 0
        for phase in self.phases:
            if start <= epoch < start + phase.epochs:
                return start, phase
            start += phase.epochs
        raise InvalidValue(f"{self.name} has epochs 0..{self.epochs - 1}, asked for {epoch}")

    def work(self, n_exits: int, side: int) -> list[float]:
        """Return the relative duration of each epoch, to estimate the time left.

        Args:
            n_exits: Number of exits of the network.
            side: Side of the images in pixels.
        """
        return [phase.work(n_exits, side) for phase in self.phases for _ in range(phase.epochs)]

    def text(self) -> str:
        """Return a description of one line, for listings."""
        crafted = [phase.crafting for phase in self.phases if phase.crafting]
        against = " then ".join(dict.fromkeys(f"{c.against} ({c.steps} step{'s' * (c.steps > 1)})" for c in crafted))
        epochs = f"{self.epochs} epochs"
        pruned = f", {self.pruning.sparsity:.0%} of the weights pruned" if self.pruning else ""
        bounds = " then ".join(dict.fromkeys(phase.certified.bounds for phase in self.phases if phase.certified))
        on = f"against {against}" if against else f"on bounds ({bounds})" if bounds else "clean images alone"
        part = ", the gates alone" if self.trained == "gates" else ""
        return f"{epochs}, {on}{pruned}{part}"

    def summary(self) -> Mapping[str, Any]:
        """Return all settings that are not at their defaults, as JSON data; a setting added later does not change old files."""
        summary: dict[str, Any] = _non_default(self)
        return summary


def _non_default(setting: Any) -> Any:
    if isinstance(setting, tuple):
        return [_non_default(part) for part in setting]
    if not isinstance(setting, Recipe | Phase | Crafting | Pruning | Distillation | Certified):
        return describe(setting)
    named = ((field, getattr(setting, field.name)) for field in fields(setting))
    return {field.name: _non_default(value) for field, value in named if field.default is MISSING or value != field.default}

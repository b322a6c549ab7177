"""The attacks of exitbench behind the interface of the package ``torchattacks``.

Example: ``atk = Adaptive(net, eps=8/255, policy=EntropyPolicy((0.3, 0.4))); adv = atk(images, labels)``. Importing
this module imports ``torchattacks``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torchattacks
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.noise import Noise
from exitbench.attacks.presets import expand
from exitbench.attacks.regions import Norm, ThreatModel
from exitbench.attacks.settings import KNOBS, settings_for
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.normalisation import Normalise
from exitbench.models.policies import Policy
from exitbench.models.views import DeployedView


def content_noise(images: Tensor, seed: int) -> Noise:
    """Return noise for ``images`` ``(B, C, H, W)``, seeded per sample by a hash of its pixels, whatever order and batch."""
    pixels = np.ascontiguousarray(images.detach().cpu().float().numpy(), dtype="<f4")
    return Noise(seed, tuple(int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") for image in pixels))


class MultiExitAttack(torchattacks.attack.Attack):  # type: ignore[misc] # the package has no types
    """An attack of exitbench behind the interface of ``torchattacks.attack.Attack``.

    Call it with images ``(B, C, H, W)`` in [0, 1] (or normalised, after ``set_normalization_used``) and labels ``(B,)``; it
    returns detached images of the same shape. Only the default mode is supported: the attacks are untargeted.

    Args:
        model: A multi-exit network, or a ``DeployedView`` of one. In a ``MultiAttack``, all attacks must get the same view.
        attack: The attack of exitbench.
        policy: The deployed rule; leave it out if ``model`` is a view, which has one.
        seed: Seed of the noise, which is drawn for each image by its content.
        name: Name of the attack; that of its class by default.

    Raises:
        TypeError: If ``model`` is of another type.
        ValueError: If no policy is given, two different ones are, or it is for another number of exits.
    """

    def __init__(
        self,
        model: EarlyExitNet | DeployedView,
        attack: Attack,
        policy: Policy | None = None,
        *,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name or type(attack).__name__, deployed_view(model, policy))
        self.native = attack
        self.seed = seed
        self.supported_mode = ["default"]

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Attack images in [0, 1]; called by ``__call__``."""
        if labels is None:
            raise ValueError(f"{self.attack} breaks labels: call it with images and labels")
        x = images.detach().clone().to(self.device)
        y = labels.detach().clone().to(self.device).long()
        x_adv = self.native(self._searched(), x, y, noise=content_noise(x, self.seed))
        return x_adv.detach()

    def __call__(self, inputs: Tensor, labels: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        self._follow_mode()
        adversarial: Tensor = super().__call__(inputs, labels, *args, **kwargs)
        return adversarial

    def save(self, *args: Any, **kwargs: Any) -> Any:
        """Save adversarial images as ``torchattacks`` does; the robust accuracy that it prints is that of the deployed rule."""
        self._follow_mode()
        return super().save(*args, **kwargs)

    def _set_mode_targeted(self, mode: str, quiet: bool) -> None:
        raise ValueError(
            f"{self.attack} breaks a label and aims at none: targeted modes are not supported ({mode} was asked for)"
        )

    def _follow_mode(self) -> None:
        """Copy the network's training mode to its view, as it is the mode that ``torchattacks`` restores."""
        self.model.training = self.model.model.training

    def _searched(self) -> EarlyExitNet:
        """Return the network for images in [0, 1]: with the normalisation of its inputs in front, if there is one."""
        net: EarlyExitNet = self.model.model
        if self._normalization_applied is not False:
            return net
        return net.preceded_by(Normalise(self.normalization_used["mean"], self.normalization_used["std"]))


def deployed_view(model: EarlyExitNet | DeployedView, policy: Policy | None) -> DeployedView:
    """Return ``model`` under the deployed rule ``policy``, as a classifier.

    Raises:
        TypeError: If ``model`` is neither an ``EarlyExitNet`` nor a ``DeployedView``.
        ValueError: If no policy is given, or another one than that of the view.
    """
    if isinstance(model, DeployedView):
        if policy not in (None, model.policy):
            raise ValueError(f"the view deploys {model.policy}, the attack is given {policy}; leave one out")
        return model
    if not isinstance(model, EarlyExitNet):
        raise TypeError(f"the model must be an EarlyExitNet or a DeployedView of one, not {type(model).__name__}")
    if policy is None:
        raise ValueError("say which rule is deployed, as policy=EntropyPolicy((0.3, 0.4)), or hand in a DeployedView")
    return DeployedView(model, policy)


@dataclass(frozen=True)
class _Usual:
    """What this interface's users are used to."""

    steps: int = 20
    step_ratio: float = 1 / 4


_USUAL = _Usual()
_OF_ASCENTS = ("alpha", "steps", *(name for name in KNOBS if name not in ("steps", "step_size", "budget")))
"""Arguments of the gradient attacks alone."""


class _Form(MultiExitAttack):
    """An attack of ``exitbench.attacks.presets``, by its name there.

    Args:
        model, policy, seed: See ``MultiExitAttack``.
        eps: Radius, for pixels in [0, 1].
        alpha: Step size; a quarter of ``eps`` by default.
        steps: Number of gradient steps; 20 by default, 100 for ``apgd``. For ``Adaptive``, the largest number of gradients
            per image.
        k: Exit, from 1, for the attacks that have one.
        norm: ``Linf`` or ``L2``.
        grid: Steps of pixel values that count, 255 for images of 8 bits; None for any values.
        costs: Cost of each exit, for the attacks that need them (``exitbench.models.cost.measure_costs``).
        settings: ``method``, ``loss``, ``restarts``, ``keep`` and ``gamma``, as in ``exitbench.attacks.settings.AttackSettings``;
            the method ``wrm`` has no ball.

    Raises:
        ValueError: If the network has no exit ``k``, a value is out of range, or the attack does not use an argument.
        TypeError: If there is an argument of another name.
    """

    form: ClassVar[str]
    ignored: ClassVar[tuple[str, ...]] = ()
    """Arguments that the attack does not use; passing one is an error."""

    def __init__(
        self,
        model: EarlyExitNet | DeployedView,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int | None = None,
        *,
        policy: Policy | None = None,
        k: int | None = None,
        norm: Norm = "Linf",
        grid: int | None = None,
        costs: Sequence[float] = (),
        seed: int = 0,
        **settings: Any,
    ) -> None:
        view = deployed_view(model, policy)
        if unknown := sorted(set(settings) - set(_OF_ASCENTS)):
            raise TypeError(f"{type(self).__name__} takes no {' and no '.join(unknown)}")
        given = {"alpha": alpha, "steps": steps, **{name: KNOBS[name].value(value) for name, value in settings.items()}}
        usual = {name: KNOBS[name].value(KNOBS[name].default) for name in settings}
        if useless := [name for name in self.ignored if given.get(name) not in (None, usual.get(name))]:
            raise ValueError(f"{type(self).__name__} sets its own {' and '.join(useless)}")
        knobs = {**settings, "steps": steps, "step_size": alpha, "budget": steps}
        made = settings_for(ThreatModel(norm, eps, grid), knobs, _USUAL)
        name = self.form if k is None else f"{self.form}:{k}"
        attacks, _ = expand([name], Deployment(view.model.n_exits, view.policy, tuple(costs)), made)
        if not attacks:
            raise ValueError(f"{type(self).__name__} needs a network with more than one exit: one exit has one cost")
        (attack,) = attacks.values()
        super().__init__(view, attack, seed=seed, name=type(self).__name__)
        self.eps, self.norm = eps, norm


class SingleExit(_Form):
    """An attack on the loss of exit ``k``."""

    form = "single"

    def __init__(self, model: EarlyExitNet | DeployedView, k: int, eps: float = 8 / 255, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, eps, *args, k=k, **kwargs)


class Average(_Form):
    """An attack on the mean loss over the exits."""

    form = "average"


class Maximum(_Form):
    """An attack on the largest loss over the exits."""

    form = "max"


class MaxAverage(_Form):
    """The candidate of ``single:1..K`` with the highest mean loss."""

    form = "max_average"


class AverageMax(_Form):
    """An attack on the mean loss from 1 + K starts; it keeps the candidate with the highest maximum loss."""

    form = "average_max"


class Adaptive(_Form):
    """The adaptive attack on the deployed rule; ``steps`` limits the gradients per image."""

    form = "adaptive"
    ignored = tuple(name for name in _OF_ASCENTS if name != "steps")


PolicyAttack = Adaptive
"""Its former name."""


class AutoAttack(_Form):
    """AutoAttack by the package pyautoattack (not the one in torchattacks), on the deployed rule, or on exit ``k``.

    It draws one stream of random numbers for the whole batch, so that its results depend on the batch.
    """

    form = "autoattack"
    ignored = _OF_ASCENTS


class SlowdownFree(_Form):
    """An attack that raises the cost of the exit taken, whatever the prediction; it needs ``costs`` and more than one exit."""

    form = "slowdown:free"
    ignored = _OF_ASCENTS


class SlowdownKeepLabel(SlowdownFree):
    """A slowdown attack that keeps the deployed prediction on the clean image."""

    form = "slowdown:keep_label"


class SlowdownDoubleKill(SlowdownFree):
    """A slowdown attack that also makes the deployed prediction wrong."""

    form = "slowdown:double_kill"


class Cascade(_Form):
    """The worst case: every attack on accuracy in turn, each on the survivors of those before, with AutoAttack last.

    AutoAttack draws one stream of random numbers for the whole batch, so that results depend on the batch.
    """

    form = "cascade"

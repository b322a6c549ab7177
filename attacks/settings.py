"""The settings of an evaluation's attacks, each defined once; options, requests and commands are derived from it.

To add a setting, add a field to ``AttackSettings`` and use it in the attack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from exitbench.attacks.knobs import ASCENTS, Knob, Spec, Usual, knob, knobs_of, simple
from exitbench.models.errors import InvalidValue

if TYPE_CHECKING:  # the command line reads the knobs for its help, which must not take seconds
    from exitbench.attacks.base import Attack
    from exitbench.attacks.objectives import Loss, Reduction, TargetedDLR
    from exitbench.attacks.pgd import Keep, Start
    from exitbench.attacks.regions import ThreatModel

Method = Literal["pgd", "fgsm", "apgd", "wrm"]

BUDGET = 680
"""Default limit on the gradients per sample of the adaptive attack."""

APGD_STEPS = 100

_LOSSES = {"ce": "CE", "margin": "Margin", "dlr": "DLR", "dlr-targeted": "TargetedDLR"}
_METHODS = {
    **{"PGD": "pgd", "APGD": "apgd", "APGDTargeted": "apgd", "WRM": "wrm"},
    **dict.fromkeys(("PolicyAttack", "AdaptiveAtOneExit"), "adaptive"),
}


def _loss(name: str) -> Loss | TargetedDLR:
    from exitbench.attacks import objectives

    made: Loss | TargetedDLR = getattr(objectives, _LOSSES[name])()
    return made


def _loss_in(spec: Spec) -> str | None:
    if spec["type"] == "APGDTargeted":
        return "dlr-targeted"
    kind = spec.get("objective", {}).get("loss", {}).get("type")
    return next((name for name, found in _LOSSES.items() if found == kind), None)


def _method_in(spec: Spec) -> str | None:
    """Return the method, or the name of the attack, that a description belongs to; None for an attack without knobs."""
    method = _METHODS.get(spec["type"])
    return "fgsm" if method == "pgd" and spec["start"] == "clean" else method


def _usual_steps(usual: Usual, method: str, _eps: float) -> int:
    return APGD_STEPS if method == "apgd" else usual.steps


def _usual_step_size(usual: Usual, _method: str, eps: float) -> float:
    return eps * usual.step_ratio


@dataclass(frozen=True)
class AttackSettings:
    """The settings of attacks.

    FGSM takes one step of ``eps`` from the clean image; APGD and WRM adapt their step sizes.

    Attributes:
        region: The threat model.
        method: ``pgd``, ``fgsm``, ``apgd`` or ``wrm``.
        loss: The loss at each exit; the targeted one is for APGD only.
        steps, step_size, restarts, keep: See ``PGD``.
        gamma: Weight of WRM's penalty on the squared distance.
        budget: Largest number of gradients per image of the adaptive attack.

    Raises:
        InvalidValue: If a value is out of range, a targeted loss is used without APGD, or restarts with a method that has none.
    """

    spec_name: ClassVar[str] = "Settings"

    region: ThreatModel
    _: KW_ONLY
    method: Method = knob(str, "pgd", of=ASCENTS, choices=ASCENTS, read=_method_in, help="How the gradient attacks move.")
    loss: Loss | TargetedDLR = knob(
        str, "ce", of=ASCENTS, choices=tuple(_LOSSES), named=_loss, read=_loss_in, help="Loss that the gradient attacks raise."
    )
    steps: int = knob(
        int,
        None,
        of=("pgd", "apgd", "wrm"),
        help="Steps of a gradient attack. [default: the dataset's usual number, 100 for apgd]",
        usual=_usual_steps,
    )
    step_size: float = knob(
        float, None, of=("pgd",), help="Step size of pgd. [default: the dataset's usual one]", usual=_usual_step_size
    )
    restarts: int = knob(int, 1, of=("pgd", "apgd"), help="Random starts of pgd and apgd.")
    keep: Keep = knob(
        str,
        "best",
        of=("pgd",),
        choices=("best", "last"),
        help="Image that pgd returns: the best of its path, or the last as in the paper.",
    )
    gamma: float = knob(float, 0.3, of=("wrm",), help="Weight of the squared distance in wrm.", place=("region", "gamma"))
    budget: int = knob(
        int,
        BUDGET,
        of=("adaptive",),
        help="Most gradients that the adaptive attack takes for one image; 2.25 times as many in worst.",
    )

    def __post_init__(self) -> None:
        for name, each in KNOBS.items():
            each.check(name, getattr(self, name))
        if self.targeted and self.method != "apgd":
            raise InvalidValue(f"the targeted DLR loss is for the method apgd, not {self.method}")
        if self.restarts > 1 and (self.method in ("fgsm", "wrm") or self.targeted):
            raise InvalidValue(f"restarts are for pgd and untargeted apgd, not {self.method} with {type(self.loss).__name__}")

    @property
    def threat_model(self) -> ThreatModel:
        """What the attacker may do to an image."""
        return self.region

    @property
    def targeted(self) -> bool:
        """Whether the loss aims at other classes, one after another."""
        from exitbench.attacks.objectives import TargetedDLR

        return isinstance(self.loss, TargetedDLR)

    def ascend(self, over: Reduction, start: Start | Attack = "random") -> Attack:
        """Return the method on the objective ``loss`` reduced by ``over``."""
        from exitbench.attacks.apgd import APGD, APGDTargeted
        from exitbench.attacks.objectives import Objective
        from exitbench.attacks.pgd import PGD, fgsm
        from exitbench.attacks.regions import Penalty
        from exitbench.attacks.wrm import WRM

        if self.targeted:
            return APGDTargeted(over, self.region, self.steps, start=start)
        objective = Objective(self.untargeted_loss, over)
        deterministic_start = "clean" if start == "random" else start
        if self.method == "fgsm":
            return fgsm(objective, self.region, deterministic_start)
        if self.method == "wrm":
            return WRM(objective, Penalty(self.gamma, self.region.grid), self.steps, deterministic_start)
        restarts = self.restarts if start == "random" else 1
        if self.method == "apgd":
            return APGD(objective, self.region, self.steps, restarts, start)
        return PGD(objective, self.region, self.steps, self.step_size, restarts, self.keep, start)

    def select(self, attacks: Iterable[Attack], by: Reduction) -> Attack:
        """Return the best of ``attacks`` by the loss reduced by ``by``."""
        from exitbench.attacks.best_of import BestOf
        from exitbench.attacks.objectives import Objective

        return BestOf(tuple(attacks), Objective(self.untargeted_loss, by))

    @property
    def untargeted_loss(self) -> Loss:
        """The loss, or the untargeted DLR in place of the targeted one."""
        from exitbench.attacks.objectives import DLR, TargetedDLR

        return DLR() if isinstance(self.loss, TargetedDLR) else self.loss


Settings = AttackSettings
"""The name of ``AttackSettings`` in 0.1, for attacks of installed packages."""

KNOBS: Mapping[str, Knob] = knobs_of(AttackSettings)
"""Every setting but the threat model, by name, in the order in which they are shown."""


def settings_for(threat_model: ThreatModel, given: Mapping[str, Any], usual: Usual) -> AttackSettings:
    """Return the settings of an evaluation: what is given, by the knobs' names, and defaults for what is not or is None.

    Raises:
        InvalidValue: for a value out of range or values that do not go together.
        TypeError: for a name that is no knob's.
    """
    values = {name: each.default if given.get(name) is None else given[name] for name, each in KNOBS.items()}
    for name, each in KNOBS.items():
        if values[name] is None and each.usual is not None:
            values[name] = each.usual(usual, values["method"], threat_model.eps)
        each.check(name, values[name])
        values[name] = each.value(values[name])
    return AttackSettings(threat_model, **(dict(given) | values))


def read_back(specs: Iterable[Spec]) -> Iterator[tuple[str, Any]]:
    """Yield the knobs, name and value, that make the described attacks: all of a gradient attack's, of others what is no default.

    A value is as it would be given; a knob whose value differs among the attacks comes once for each.
    """
    found = [(each, _method_in(each)) for spec in specs for each in simple(spec)]
    ascents = [(spec, method) for spec, method in found if method in ASCENTS and not isinstance(spec["start"], Mapping)]
    others = [(spec, method) for spec, method in found if method not in ASCENTS]
    for name, each in KNOBS.items():
        for spec, method in ascents[:1]:
            if method in each.of and (value := each.found(name, spec)) is not None:
                yield name, value
        told = {each.found(name, spec) for spec, method in others if method in each.of}
        yield from ((name, value) for value in told - {None, each.default})

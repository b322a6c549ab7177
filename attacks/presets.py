"""The named attacks: what each name on the command line means for a network of K exits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from exitbench.attacks import plugins
from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.autoattack import AutoAttack
from exitbench.attacks.base import Attack
from exitbench.attacks.best_of import BestOf
from exitbench.attacks.cascade import Cascade
from exitbench.attacks.objectives import Max, Mean, Only
from exitbench.attacks.pgd import Start
from exitbench.attacks.settings import Settings
from exitbench.attacks.slowdown import MODES, Slowdown
from exitbench.attacks.torchattack import torch_attack
from exitbench.models.plugins import Plugin
from exitbench.models.policies import Policy
from exitbench.models.registry import UnknownName

FORMS = {
    "single": "single:k for every exit k",
    "single:k": "ascend the loss of exit k",
    "average": "ascend the mean loss over the exits",
    "max": "ascend the largest loss over the exits",
    "max_average": "of single:1..K, keep per sample the one with the highest mean loss",
    "average_max": "ascend the mean loss from 1 + K starts (random, each single:k), keep the one with the highest maximum loss",
    "adaptive": "the adaptive attack on the deployed rule: breaks each sample at whichever exit it can make it take",
    "slowdown": "slowdown:free, slowdown:keep_label and slowdown:double_kill",
    "slowdown:free": "raise the cost of the exit taken; the prediction may become anything",
    "slowdown:keep_label": "raise it, the deployed prediction staying what it is on the clean image",
    "slowdown:double_kill": "raise it, the deployed prediction being wrong as well",
    "autoattack": "AutoAttack (standard) on the deployed view",
    "autoattack:k": "AutoAttack (standard) on the view of exit k",
    "autoattack:each": "autoattack:k for every exit k",
    "cascade": "the worst case alone: the attacks on the error in turn, each on the survivors of those before; also called worst",
    "torchattacks:NAME": "any attack of the package torchattacks on the deployed view, as PGDL2 or PGD(steps=40,alpha=0.01)",
}
"""Every name and its one-line meaning."""

ALL = ("single", "average", "max", "max_average", "average_max", "adaptive", "slowdown", "autoattack")
"""What ``all`` stands for."""

SAME_ON_ONE_EXIT = {"average", "max", "max_average", "average_max"}
"""Forms that are ``single:1`` on a network with one exit."""

SLOWDOWNS = tuple(f"slowdown:{mode}" for mode in MODES)
"""What ``slowdown`` stands for; one exit has one cost, so that there is none on a network with one exit."""


ALIASES = {"worst": "cascade", "policy": "adaptive"}
"""Other names that attacks are asked for by, and the names that they are reported under."""


@dataclass(frozen=True)
class Skipped:
    """A name that asks for nothing new, and why."""

    name: str
    reason: str


def expand(
    names: Iterable[str], n_exits: int, settings: Settings, policy: Policy, costs: Sequence[float] = ()
) -> tuple[dict[str, Attack], list[Skipped]]:
    """The attacks that ``names`` stand for, by name, in order, and the names skipped with the reason.

    ``all`` is the whole matrix and ``single`` every ``single:k``. On a one-exit network every form of the
    gradient attack is ``single:1``; the others are skipped, and so is ``slowdown``.

    Args:
        names: see ``FORMS``.
        n_exits: of the network.
        settings: of the gradient attacks.
        policy: the deployed rule.
        costs: of each exit (mmacs); only slowdown attacks need them.

    Raises:
        UnknownName: with suggestions.
        ValueError: for an exit that the network does not have, a slowdown attack without costs, an attack of an installed
            package that cannot be made, or whose name is taken.
    """
    _added()  # a name that is taken twice is an error whichever is asked for
    attacks: dict[str, Attack] = {}
    skipped: list[Skipped] = []
    for name in _elementary(names, n_exits):
        if n_exits == 1 and name in SAME_ON_ONE_EXIT:
            skipped.append(Skipped(name, "the same as single:1 on a network with one exit"))
            attacks.setdefault("single:1", _build("single:1", n_exits, settings, policy, costs))
        elif n_exits == 1 and name in SLOWDOWNS:
            skipped.append(Skipped(name, "one exit has one cost"))
        else:
            attacks[name] = _build(name, n_exits, settings, policy, costs)
    return attacks, skipped


def matrix_names(n_exits: int) -> set[str]:
    """Names of the whole matrix on a network of ``n_exits`` exits: what ``all`` comes to."""
    names = set(_elementary(["all"], n_exits))
    return names - SAME_ON_ONE_EXIT - set(SLOWDOWNS) if n_exits == 1 else names


def _elementary(names: Iterable[str], n_exits: int) -> Iterable[str]:
    for name in names:
        if name == "all":
            yield from _elementary(ALL, n_exits)
        elif name == "single":
            yield from (f"single:{k}" for k in range(1, n_exits + 1))
        elif name == "autoattack:each":
            yield from (f"autoattack:{k}" for k in range(1, n_exits + 1))
        elif name in ALIASES:
            yield ALIASES[name]
        elif name == "slowdown":
            yield from SLOWDOWNS
        else:
            yield name


def _build(name: str, n_exits: int, settings: Settings, policy: Policy, costs: Sequence[float]) -> Attack:
    singles = [settings.ascend(Only(k)) for k in range(1, n_exits + 1)]
    form, _, exit_ = name.partition(":")
    if exit_ and form in ("single", "autoattack"):
        k = _exit_number(name, exit_, n_exits)
        return singles[k - 1] if form == "single" else AutoAttack(settings.region, k)
    if form == "torchattacks":
        return torch_attack(settings.region, policy, exit_)
    starts: list[Start | Attack] = ["random", *singles]
    forms: dict[str, Callable[[], Attack]] = {
        "average": lambda: settings.ascend(Mean()),
        "max": lambda: settings.ascend(Max()),
        "max_average": lambda: settings.select(singles, by=Mean()),
        "average_max": lambda: settings.select([settings.ascend(Mean(), start) for start in starts], by=Max()),
        **{f"slowdown:{mode}": partial(Slowdown, settings.region, policy, tuple(costs), mode) for mode in MODES},
        "adaptive": lambda: Adaptive(settings.region, policy, settings.budget),
        "autoattack": lambda: AutoAttack(settings.region, policy),
        "cascade": lambda: _cascade(n_exits, settings, policy),
    }
    if name in forms:
        return forms[name]()
    added = _added()
    if name not in added:
        raise UnknownName("attack", name, ["all", *FORMS, *added])
    return plugins.build(added[name], n_exits, settings, policy, costs)


def attack_texts() -> dict[str, str]:
    """Every name and its one-line meaning, those of installed packages included."""
    return FORMS | {name: plugins.summary(plugin) for name, plugin in _added().items()}


def _added() -> dict[str, Plugin]:
    """The attacks of installed packages; everything before a colon, and what stands for others, is taken."""
    return plugins.plugin_attacks({"all", "none", *ALIASES, *(name.partition(":")[0] for name in FORMS)})


def _cascade(n_exits: int, settings: Settings, policy: Policy) -> Attack:
    """The matrix's attacks on the error, selections taken apart: the adaptive one first, AutoAttack last."""
    matrix, _ = expand(["adaptive", *(name for name in ALL if name != "slowdown")], n_exits, settings, policy)
    last = matrix.pop("autoattack")
    apart = [attack.attacks if isinstance(attack, BestOf) else (attack,) for attack in matrix.values()]
    return Cascade((*dict.fromkeys(each for attacks in apart for each in attacks), last), policy)


def _exit_number(name: str, text: str, n_exits: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= n_exits:
        raise ValueError(f"attack {name!r}: the model's exits are 1..{n_exits}")
    return int(text)

"""The registry of attacks of exitbench and of installed packages, by their names on the command line.

Nothing here imports torch, so that listings are fast; factories import what they need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from exitbench.attacks.plugin_call import made_by_plugin
from exitbench.models.errors import InvalidValue, NameTaken, UnknownName
from exitbench.models.own_code import is_own
from exitbench.models.plugins import Plugin, by_name, plugins

if TYPE_CHECKING:
    from exitbench.attacks.base import Attack
    from exitbench.attacks.deployment import Deployment
    from exitbench.attacks.settings import AttackSettings

GROUP = "exitbench.attacks"
"""Entry points: modules that register attacks when they are imported, or the attack's name and an ``AttackFactory``."""

Goal = Literal["error", "cost"]
"""What an attack raises: the deployed rule's error, or what a sample costs."""

_PART = r"[A-Za-z][A-Za-z0-9_.-]*"
_NAME = re.compile(f"{_PART}(:{_PART})?")
_RESERVED = ("all", "none")


class AttackFactory(Protocol):
    """A function that builds the attack for an evaluation."""

    def __call__(self, deployment: Deployment, settings: AttackSettings, *parameter: Any) -> Attack:
        """Build the attack on a deployed network; a name with a parameter, such as ``single:k``, passes its value."""


@dataclass(frozen=True)
class AttackCard:
    """The description of a registered attack.

    Attributes:
        name: Name on the command line; ``single:k`` for any exit and ``torchattacks:NAME`` for any text after the colon.
        summary: Description of one line, for listings.
        make: Builds the attack.
        goal: ``error`` for an attack on accuracy, ``cost`` for one that raises the cost of samples.
        in_all: Whether it is part of ``all``, the matrix that leaderboards compare by.
        same_on_one_exit: Whether it is equal to ``single:1`` on a network with one exit.
        aliases: Other names.
        origin: The installed package that it is from; None for exitbench.
    """

    name: str
    summary: str
    make: Callable[..., Attack]
    goal: Goal = "error"
    in_all: bool = False
    same_on_one_exit: bool = False
    aliases: tuple[str, ...] = ()
    origin: str | None = None

    @property
    def parameter(self) -> str | None:
        """What stands for its parameter: ``k`` for an exit, capitals for text; None for a name without one."""
        text = self.name.partition(":")[2]
        return text if text == "k" or text.isupper() else None


@dataclass(frozen=True)
class AttackGroup:
    """A name that expands to several attacks.

    Attributes:
        name: Name on the command line.
        summary: Description of one line, for listings.
        members: Returns their names for a number of exits.
        in_all: Whether they are part of ``all``.
    """

    name: str
    summary: str
    members: Callable[[int], Iterable[str]]
    in_all: bool = False


_registered: dict[str, AttackCard | AttackGroup] = {}


def register_attack(
    name: str,
    summary: str,
    *,
    goal: Goal = "error",
    in_all: bool = False,
    same_on_one_exit: bool = False,
    aliases: tuple[str, ...] = (),
) -> Callable[[Callable[..., Attack]], Callable[..., Attack]]:
    """Register the decorated ``AttackFactory`` under a name; see ``AttackCard`` for the arguments.

    Raises:
        NameTaken: If the name is taken; the message names both modules.
        ValueError: If the name is invalid, or another package's attack is to be in ``all``.
    """

    def decorate(make: Callable[..., Attack]) -> Callable[..., Attack]:
        ours = is_own(make.__module__)
        if in_all and not ours:
            raise ValueError(f"attack {name!r} cannot be part of all: that is what leaderboards compare by")
        for each in (name, *aliases):
            _check_free(each, make.__module__)
        origin = None if ours else make.__module__
        text = summary if ours else f"{summary} [{origin}]"
        _registered[name] = AttackCard(name, text, make, goal, in_all, same_on_one_exit, aliases, origin)
        return make

    return decorate


def register_group(name: str, summary: str, members: Callable[[int], Iterable[str]], *, in_all: bool = False) -> None:
    """Register a name that expands to several attacks; see ``AttackGroup`` for the arguments."""
    _registered[name] = AttackGroup(name, summary, members, in_all)


def _check_free(name: str, module: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"an attack cannot be called {name!r}: letters, digits, '_', '.' and '-', a colon before a parameter")
    for other in _registered.values():
        if isinstance(other, AttackCard) and name in (other.name, *other.aliases):
            raise NameTaken(f"attack {name!r} of {module} is already registered by {other.make.__module__}")
    if not is_own(module) and name.partition(":")[0] in _our_names():
        raise NameTaken(f"attack {name!r} of {module} is also one of exitbench; rename or uninstall one")


def _our_names() -> set[str]:
    """Return the names that are taken: those of exitbench up to the colon, and the names of groups."""
    names = set(_RESERVED)
    for name, each in _registered.items():
        if isinstance(each, AttackGroup) or each.origin is None:
            names |= {name.partition(":")[0], *(each.aliases if isinstance(each, AttackCard) else ())}
    return names


def registered() -> Mapping[str, AttackCard | AttackGroup]:
    """Return all attacks and groups by name, in the order of registration, those of installed packages last.

    Raises:
        NameTaken: If two attacks have the same name.
    """
    import exitbench.attacks.catalog  # noqa: F401 - registers ours

    found = [plugin for plugin in plugins(GROUP, _fault) if not _registers_itself(plugin)]
    added = by_name("attack", ((plugin.name, plugin) for plugin in found), _our_names())
    return {**_registered, **{name: _card(plugin) for name, plugin in added.items()}}


def find_attack(name: str) -> tuple[AttackCard, str | None]:
    """Return the attack with this name, and its parameter as given if it has one.

    Raises:
        UnknownName: If there is no such attack; the message suggests names.
        NameTaken: If two attacks have the same name.
    """
    known = registered()
    cards = [card for card in known.values() if isinstance(card, AttackCard)]
    for card in cards:
        if name in (card.name, *card.aliases) and card.parameter is None:
            return card, None
    form, _, parameter = name.partition(":")
    for card in cards:
        if card.parameter is not None and form == card.name.partition(":")[0]:
            return card, parameter
    raise UnknownName("attack", name, ["all", *known])


def build(name: str, deployment: Deployment, settings: AttackSettings) -> Attack:
    """Build the attack with this name for an evaluation.

    Raises:
        UnknownName: If there is no such attack; the message suggests names.
        InvalidValue: If the network has no such exit, the parameter is invalid, or the attack of an installed package cannot be
            built.
    """
    card, text = find_attack(name)
    parameter: tuple[Any, ...] = () if text is None else (text,)
    if text is not None and card.parameter == "k":
        parameter = (_exit_number(name, text, deployment.n_exits),)
    if card.origin is None:
        return card.make(deployment, settings, *parameter)
    return made_by_plugin(card.make, f"attack {name!r} of {card.origin}", deployment, settings, *parameter)


def _exit_number(name: str, text: str, n_exits: int) -> int:
    """Return the exit; only ``str(exit)`` names it, so that no attack has two names."""
    if text not in map(str, range(1, n_exits + 1)):
        raise InvalidValue(f"attack {name!r}: the model's exits are 1..{n_exits}, in the digits 0-9")
    return int(text)


def _registers_itself(plugin: Plugin) -> bool:
    cards = [each for each in _registered.values() if isinstance(each, AttackCard)]
    return isinstance(plugin.value, ModuleType) or any(card.make is plugin.value for card in cards)


def _card(plugin: Plugin) -> AttackCard:
    lines = (plugin.value.__doc__ or "").strip().splitlines()
    summary = f"{lines[0] if lines else 'no description'} [{plugin.origin.partition(' (')[0]}]"
    return AttackCard(plugin.name, summary, plugin.value, origin=plugin.origin)


def _fault(plugin: Plugin) -> str | None:
    if _registers_itself(plugin):
        return None
    if not re.fullmatch(_PART, plugin.name):
        return f"an attack cannot be called {plugin.name!r}: letters, digits, '_', '.' and '-' alone"
    if not callable(plugin.value):
        return f"it is {type(plugin.value).__name__}, not a function that makes an attack"
    return None

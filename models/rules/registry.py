"""The registry of exit rules, ours and those of installed packages, by their names on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from exitbench.models.errors import NameTaken, UnknownName
from exitbench.models.plugins import Plugin, plugins
from exitbench.models.policies import Policy

GROUP = "exitbench.policies"
"""Entry points: modules that register exit rules when they are imported, or a registered class in one."""

Kind = TypeVar("Kind", bound=type[Policy])

_NAME = re.compile(r"[a-z][a-z0-9_]*(-[a-z0-9_]+)*")


@dataclass(frozen=True)
class PolicyCard:
    """The description of a registered exit rule.

    Attributes:
        name: Name on the command line.
        form: Its written form, such as ``entropy:T1,T2,...``.
        summary: Description of one line, for listings.
        kind: Its class.
    """

    name: str
    form: str
    summary: str
    kind: type[Policy]


_cards: dict[str, PolicyCard] = {}


def register_policy(name: str, *, summary: str, values: str = "") -> Callable[[Kind], Kind]:
    """Register the decorated class of exit rules under a name.

    The class is a frozen data class that implements ``Policy``, with ``of_values`` and ``values`` for its written form
    ``NAME:VALUE,VALUE,...``. If it derives from ``Thresholds``, or lists ``members``, it can be calibrated and swept.

    Args:
        name: Name on the command line: lower-case letters, digits, ``_`` and ``-``.
        summary: Description of one line, for listings.
        values: What stands behind the colon in its written form, for listings and messages: ``T1,T2,...``.

    Raises:
        NameTaken: If the name is taken; the message names both classes.
        ValueError: If the name has another form.
    """

    def decorate(kind: Kind) -> Kind:
        if name in _cards:
            other = _cards[name].kind
            raise NameTaken(f"exit rule {name!r} of {kind.__module__} is already registered by {other.__module__}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"exit rule {name!r} cannot be named on a command line; use lower-case letters, digits, _ and -")
        form = f"{name}:{values}" if values else name
        _cards[name] = PolicyCard(name, form, summary, kind)
        return kind

    return decorate


def policy_cards() -> Mapping[str, PolicyCard]:
    """Return the cards of all rules by name: ours in the order of the catalog, then those of others by name."""
    from exitbench.models.rules.catalog import ORDER  # noqa: PLC0415 - it registers ours, which import this module

    plugins(GROUP, _fault)
    others = sorted(_cards.keys() - set(ORDER))
    return {name: _cards[name] for name in (*ORDER, *others)}


def policy_card(name: str) -> PolicyCard:
    """Return the card of a rule.

    Raises:
        UnknownName: If there is no such rule; the message suggests names.
    """
    cards = policy_cards()
    if name not in cards:
        raise UnknownName("exit rule", name, cards)
    return cards[name]


def name_of(policy: Policy) -> str | None:
    """Return the name that the class of ``policy`` is registered under; None if it is not."""
    return next((card.name for card in policy_cards().values() if card.kind is type(policy)), None)


def calibrated_kinds() -> dict[str, type[Policy]]:
    """Return the rules that can be set on held-out images, by name."""
    return {name: card.kind for name, card in policy_cards().items() if card.kind.is_family()}


def _fault(plugin: Plugin) -> str | None:
    if isinstance(plugin.value, ModuleType) or any(card.kind is plugin.value for card in _cards.values()):
        return None
    return "it names no module and no class registered with exitbench.models.rules.registry.register_policy"

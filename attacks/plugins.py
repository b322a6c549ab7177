"""Attacks that installed packages add, named on the command line like ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Protocol

from exitbench.attacks.base import Attack
from exitbench.attacks.settings import Settings
from exitbench.models.error_text import first_line
from exitbench.models.errors import InvalidValue
from exitbench.models.plugins import Plugin, by_name, plugins
from exitbench.models.policies import Policy
from exitbench.models.spec import describe

GROUP = "exitbench.attacks"
"""Entry points: the attack's name, and an ``AttackFactory``."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


class AttackFactory(Protocol):
    """Makes the attack for one evaluation; the first line of its docstring says in listings what it does."""

    def __call__(self, n_exits: int, settings: Settings, policy: Policy, costs: Sequence[float]) -> Attack:
        """The attack on a network of ``n_exits``, whose exits cost ``costs`` (mmacs), deployed with ``policy``."""


def plugin_attacks(ours: Collection[str]) -> dict[str, Plugin]:
    """The attacks of installed packages by name; names of ``ours`` are taken.

    Raises:
        NameTaken: two attacks of one name.
    """
    return by_name("attack", ((plugin.name, plugin) for plugin in plugins(GROUP, _fault)), ours)


def _fault(plugin: Plugin) -> str | None:
    if not _NAME.fullmatch(plugin.name):
        return f"an attack cannot be called {plugin.name!r}: letters, digits, '_', '.' and '-' alone"
    if not callable(plugin.value):
        return f"it is {type(plugin.value).__name__}, not a function that makes an attack"
    return None


def summary(plugin: Plugin) -> str:
    """What the attack does, in a line, and whose it is."""
    lines = (plugin.value.__doc__ or "").strip().splitlines()
    return f"{lines[0] if lines else 'no description'} [{plugin.origin.partition(' (')[0]}]"


def build(plugin: Plugin, n_exits: int, settings: Settings, policy: Policy, costs: Sequence[float]) -> Attack:
    """The attack that a plugin makes.

    Raises:
        InvalidValue: its factory raises, or returns something that is no attack with a canonical description.
    """
    try:
        attack = plugin.value(n_exits, settings, policy, costs)
        if not isinstance(attack, Attack):
            raise TypeError(f"its factory returned {type(attack).__name__}, not an exitbench.attacks.base.Attack")
        describe(attack)
        hash(attack)
    except Exception as error:
        raise InvalidValue(f"attack {plugin.name!r} of {plugin.origin}: {first_line(error)}") from error
    return attack

"""What installed packages add to the registries: entry points, loaded when a registry is first asked."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from exitbench.models.error_text import first_line

_log = logging.getLogger(__name__)


class NameTaken(ValueError):
    """Two things of one name; the message names both."""


@dataclass(frozen=True)
class Plugin:
    """One entry point, loaded.

    Attributes:
        name: of the entry point.
        value: what it names.
        origin: package, version and entry point, for messages.
    """

    name: str
    value: Any
    origin: str


@cache
def plugins(group: str, fault: Callable[[Plugin], str | None]) -> tuple[Plugin, ...]:
    """The entry points of ``group`` that can be used, by name; of every other a warning says, once, that it is left out.

    Args:
        group: of entry points.
        fault: what keeps a loaded one from being used; None for nothing.

    Raises:
        NameTaken: one that registers under a name that is taken.
    """
    found = []
    for entry in sorted(importlib.metadata.entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
        origin = f"{package} ({group}: {entry.name} = {entry.value})"
        try:
            plugin = Plugin(entry.name, entry.load(), origin)
            wrong = fault(plugin)
        except NameTaken as error:
            raise NameTaken(f"{origin}: {error}") from error
        except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody's code: whatever it raises must not stop ours
            _log.debug("%s could not be loaded", origin, exc_info=True)
            wrong = first_line(error)
        if wrong is None:
            found.append(plugin)
        else:
            _log.warning("plugin left out: %s: %s", origin, wrong)
    return tuple(found)


def by_name(kind: str, named: Iterable[tuple[str, Plugin]], ours: Collection[str]) -> dict[str, Plugin]:
    """Plugins by the names of what they add.

    Args:
        kind: what they add, for the message.
        named: name and plugin.
        ours: names that are taken.

    Raises:
        NameTaken: for a name of ``ours``, or two plugins of one name; both are named.
    """
    found: dict[str, Plugin] = {}
    for name, plugin in named:
        if name in ours or name in found:
            other = "exitbench" if name in ours else found[name].origin
            raise NameTaken(f"{kind} {name!r} of {plugin.origin} is also one of {other}; rename or uninstall one")
        found[name] = plugin
    return found

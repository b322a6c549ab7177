"""Plugins of installed packages: entry points, loaded when a registry is first used."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from exitbench.models.error_text import first_line
from exitbench.models.errors import NameTaken
from exitbench.models.user_imports import imports_of_plugin, without_arguments

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """A loaded entry point.

    Attributes:
        name: Name of the entry point.
        value: The object that it refers to.
        origin: Package, version and entry point, for messages.
    """

    name: str
    value: Any
    origin: str


@cache
def plugins(group: str, fault: Callable[[Plugin], str | None]) -> tuple[Plugin, ...]:
    """Return the usable entry points of ``group``, sorted by name; the others are logged once as a warning.

    Args:
        group: Entry-point group.
        fault: Returns why a loaded plugin cannot be used, or None.

    Raises:
        NameTaken: If a plugin registers under a name that is taken.
    """
    found = []
    for entry in sorted(importlib.metadata.entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
        origin = f"{package} ({group}: {entry.name} = {entry.value})"
        try:
            plugin = Plugin(entry.name, _load(entry), origin)
            wrong = fault(plugin)
        except NameTaken as error:
            raise NameTaken(f"{origin}: {error}") from error
        except Exception as error:  # noqa: BLE001 - another package's code may raise anything; it must not stop ours
            _log.debug("%s could not be loaded", origin, exc_info=True)
            wrong = f"{first_line(error)}{_shared(entry, error)}"
        if wrong is None:
            found.append(plugin)
        else:
            _log.warning("plugin left out: %s: %s", origin, wrong)
    return tuple(found)


def _load(entry: importlib.metadata.EntryPoint) -> Any:
    site = Path(str(entry.dist.locate_file(""))).resolve() if entry.dist else None
    from exitbench.models.user_code import contained  # noqa: PLC0415 - listings without plugins need no torch

    with contained(), imports_of_plugin(_package(entry), site), without_arguments():
        return entry.load()


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return entry.module.partition(".")[0]


def _shared(entry: importlib.metadata.EntryPoint, error: BaseException) -> str:
    """Return which distributions have a package of the plugin's name, where that may be why it cannot be imported."""
    if not isinstance(error, (ImportError, AttributeError)):
        return ""
    owners = sorted(set(importlib.metadata.packages_distributions().get(_package(entry), ())))
    return f" (the package {_package(entry)!r} is installed by {' and by '.join(owners)}; uninstall one)" if owners[1:] else ""


def by_name(kind: str, named: Iterable[tuple[str, Plugin]], ours: Collection[str]) -> dict[str, Plugin]:
    """Return plugins by the names that they register.

    Args:
        kind: What they register, for the message.
        named: Pairs of name and plugin.
        ours: Names that are taken.

    Raises:
        NameTaken: If a name is in ``ours``, or two plugins have the same; the message names both.
    """
    found: dict[str, Plugin] = {}
    for name, plugin in named:
        if name in ours or name in found:
            other = "exitbench" if name in ours else found[name].origin
            raise NameTaken(f"{kind} {name!r} of {plugin.origin} is also one of {other}; rename or uninstall one")
        found[name] = plugin
    return found

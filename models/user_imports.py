"""Imports the user's own code from its folder, never exitbench's packages in its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path
from types import ModuleType

from exitbench.models.own_code import is_users, own_folders

FORMER_NAMES = ("models", "attacks", "bench")
"""The names of exitbench's own packages in version 0.1, and of their folders in a checkout."""

OWN_NAMES = "exitbench's own packages are exitbench, exitbench.models and exitbench.attacks"

_loaded: dict[Path, dict[str, ModuleType]] = {}  # by the folder that they were imported from


@contextmanager
def imports_from(folder: Path) -> Iterator[None]:
    """Import modules from ``folder`` first, as Python does for a script in that folder.

    Two networks may each bring a package of the same name (``models``, say). Modules that were imported from another such
    folder are set aside for as long as the context lasts, so that each network gets its own.

    Raises:
        ImportError: If a file of exitbench itself was imported as ``models``, ``attacks`` or ``bench``.
    """
    folder = folder.resolve()
    others = {name for other, modules in _loaded.items() if other != folder for name in modules}
    aside = {name: sys.modules.pop(name) for name in others if name in sys.modules}
    sys.modules.update(_loaded.get(folder, {}))
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    invalidate_caches()
    try:
        yield
        _refuse_ours()
    finally:
        sys.path.remove(str(folder))
        new = {name: sys.modules[name] for name in set(sys.modules) - before if _stands_in(sys.modules[name], folder)}
        _loaded.setdefault(folder, {}).update(new)
        for name, module in aside.items():
            sys.modules.setdefault(name, module)


def _stands_in(module: ModuleType, folder: Path) -> bool:
    """Return whether a module is the user's own and lies in ``folder``; factory files do not count, they have unique names."""
    if module.__name__.startswith("_factory_"):
        return False
    places = [Path(place).resolve() for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ())) if place]
    return any(place.is_relative_to(folder) and is_users(place) for place in places)


def _refuse_ours() -> None:
    folders = own_folders().values()
    ours = []
    for name in [name for name in sys.modules if name.partition(".")[0] in FORMER_NAMES]:
        file = getattr(sys.modules[name], "__file__", None)
        if file and any(Path(file).resolve().is_relative_to(folder) for folder in folders):
            ours.append(name)
            del sys.modules[name]
    if ours:
        raise ImportError(f"{max(ours, key=len)} is a file of exitbench itself; {OWN_NAMES}")

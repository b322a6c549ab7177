"""Imports of the user's own code and of plugins: each gets its own packages, even where two have one name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from exitbench.models.own_code import is_users, own_folders

FORMER_NAMES = ("models", "attacks", "bench")
"""The names of exitbench's own packages in version 0.1, and of their folders in a checkout."""

OWN_NAMES = "exitbench's own packages are exitbench, exitbench.models and exitbench.attacks"

_loaded: dict[Path, dict[str, ModuleType]] = {}  # by the folder that they were imported from
_of_plugins: dict[str, dict[str, ModuleType]] = {}  # by the package that they were imported from, where a user's has its name


@contextmanager
def without_arguments() -> Iterator[None]:
    """Hide the command line's arguments from code that parses them when it is imported: they are ours, not its own."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments


def package_of(path: Path) -> str:
    """Return the dotted name of the package that a file is part of, "" for none: every folder with an ``__init__.py`` is one."""
    parts: list[str] = []
    folder = path.resolve().parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


@contextmanager
def imports_for(path: Path, package: str) -> Iterator[None]:
    """Import modules as the code in the file ``path`` does: from its own folder first, then from where its package is found."""
    own = path.resolve().parent
    with imports_from(own.parents[package.count(".")] if package else own):
        sys.path.insert(0, str(own))
        try:
            yield
        finally:
            sys.path.remove(str(own))


@contextmanager
def imports_from(folder: Path) -> Iterator[None]:
    """Import modules from ``folder`` first, as Python does for a script in that folder.

    Two networks, or a network and a plugin, may each bring a package of the same name (``models``, say). Modules that were
    imported from another such folder, and plugins of a name that this folder has as well, are set aside for as long as the
    context lasts, so that each network gets its own.

    Raises:
        ImportError: If a file of exitbench itself was imported as ``models``, ``attacks`` or ``bench``.
    """
    folder = folder.resolve()
    others = {name for other, modules in _loaded.items() if other != folder for name in modules}
    others |= {name for package in _of_plugins for name in _modules_of(package) if _is_hidden_by(package, folder)}
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


@contextmanager
def imports_of_plugin(package: str, site: Path | None) -> Iterator[None]:
    """Import an installed package, whatever the user's own code beside the command has of the same name.

    Args:
        package: its top-level name.
        site: folder that it is installed in, where that is known.
    """
    users = {name: sys.modules.pop(name) for name in _modules_of(package) if any(name in each for each in _loaded.values())}
    here = sys.path.pop(0) if _is_working_folder(sys.path[0]) and site != Path.cwd().resolve() else None
    invalidate_caches()
    try:
        if package in users and _origin(package) in (None, getattr(users[package], "__file__", None)):
            sys.modules.update(users)  # a plugin that is being developed where its network stands
        else:
            sys.modules.update(_of_plugins.get(package, {}))  # a second entry point of a package must not import it again
        _of_plugins.setdefault(package, {})
        yield
    finally:
        if here is not None:
            sys.path.insert(0, here)
        if users:
            own = {name: sys.modules[name] for name in _modules_of(package) if sys.modules[name] is not users.get(name)}
            _of_plugins[package].update(own)
        sys.modules.update(users)


def _modules_of(package: str) -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == package]


def _is_hidden_by(package: str, folder: Path) -> bool:
    """Return whether a script in the folder would import its own package of that name in place of the plugin's."""
    has_own = (folder / package).is_dir() or (folder / f"{package}.py").is_file()
    return has_own and package in sys.modules and not _stands_in(sys.modules[package], folder)


def _is_working_folder(entry: str) -> bool:
    """Return whether Python put this first entry of the path there itself, as for ``python -m``."""
    return not sys.flags.safe_path and entry in ("", str(Path.cwd()))


def _origin(package: str) -> str | None:
    try:
        spec = find_spec(package)
    except ValueError:
        return None
    return spec.origin if spec else None


def _stands_in(module: ModuleType, folder: Path) -> bool:
    """Return whether a module is the user's own and lies in ``folder``; factory files do not count, they have unique names."""
    if module.__name__.rpartition(".")[2].startswith("_factory_"):
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

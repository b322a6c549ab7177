"""Locates the code of exitbench itself, however it is installed, and tells it from the user's."""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "exitbench"


class IncompleteInstallation(Exception):
    """A part of exitbench itself is not where it is installed; the message names it."""

    def __init__(self, missing: object) -> None:
        super().__init__(
            f"{missing} is missing from this installation of exitbench; install it again: pip install --force-reinstall exitbench"
        )


_LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = {"site-packages", "dist-packages"}


def is_own(module: str) -> bool:
    """Return whether a dotted module name belongs to exitbench."""
    return module.partition(".")[0] == PACKAGE


def own_folders() -> dict[str, Path]:
    """Return the folders of the packages ``exitbench``, ``exitbench.models`` and ``exitbench.attacks``, by package name.

    In a checkout these stand beside each other; in an installed wheel the second and third stand inside the first.

    Raises:
        IncompleteInstallation: one of them is missing.
    """
    folders = {}
    for name in (PACKAGE, f"{PACKAGE}.models", f"{PACKAGE}.attacks"):
        spec = find_spec(name)
        if spec is None or not spec.origin:
            raise IncompleteInstallation(f"the package {name}")
        folders[name] = Path(spec.origin).resolve().parent  # a checkout installed in strict mode is a tree of links
    return folders


def own_sources() -> dict[str, Path]:
    """Return every source file of exitbench, by a name that is the same for every kind of installation."""
    folders = own_folders()
    inner = [folder for name, folder in folders.items() if name != PACKAGE]
    found = {}
    for name, folder in folders.items():
        for path in folder.rglob("*.py"):
            if name != PACKAGE or not any(path.is_relative_to(other) for other in inner):
                found[f"{name.replace('.', '/')}/{path.relative_to(folder).as_posix()}"] = path
    return dict(sorted(found.items()))


def is_users(path: Path) -> bool:
    """Return whether a file is the user's own code: it belongs to no installed package, not to Python, and not to exitbench."""
    ours = any(path.is_relative_to(folder) for folder in own_folders().values())
    return not (ours or path.is_relative_to(_LIBRARY) or _INSTALLED & set(path.parts))

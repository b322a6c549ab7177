"""Imports robustbench beside newer packages than it was written for, without side effects on other code."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any

from exitbench.models.error_text import first_line
from exitbench.models.foreign import ForeignModelError
from exitbench.models.zoo.stand_ins import STAND_INS, StandInFinder
from exitbench.models.zoo.surroundings import some_home

_PACKAGE = "robustbench"
_private: dict[str, ModuleType] = {}
"""Modules of robustbench that were imported with stand-ins; they are in ``sys.modules`` only while they are in use."""


@contextmanager
def robustbench_package() -> Iterator[ModuleType]:
    """Import the package robustbench for use inside the context; what it prints goes to the error stream.

    Robustbench 1.1.1 imports ``autoattack`` (PyPI has only ``pyautoattack``) and ``pkg_resources`` (removed in setuptools 81).
    Where these are missing, stand-ins replace them while the context lasts. Afterwards ``sys.modules`` and timm's model
    registry are restored, so that no other code gets a robustbench with stand-ins, or robustbench's networks under timm's
    names. Where they are installed, or not needed, this is an ordinary import.

    Raises:
        ForeignModelError: If robustbench is not installed, or cannot be imported for another reason.
    """
    if not _is_installed():
        raise ForeignModelError(
            "the package robustbench is not installed: `pip install robustbench`, or in a clone of exitbench "
            "`pip install -c constraints.txt -e '.[robustbench]'`"
        )
    if _PACKAGE in sys.modules:  # imported by other code, or by an outer context: it works
        yield sys.modules[_PACKAGE]
        return
    finder, present = StandInFinder(), set(sys.modules)
    sys.modules.update(_private)
    sys.meta_path.append(finder)
    try:
        with some_home(), _timm_names(), redirect_stdout(sys.stderr):
            try:
                yield _imported()
            finally:
                _take_back(finder, present)
    finally:
        sys.meta_path.remove(finder)


def robustbench_version() -> str:
    """Return the installed version of robustbench.

    Raises:
        importlib.metadata.PackageNotFoundError: If it is not installed.
    """
    return importlib.metadata.version(_PACKAGE)


def _is_installed() -> bool:
    """Return whether there is a distribution of that name: torchattacks ships a folder called ``robustbench``, too."""
    try:
        importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec(_PACKAGE) is not None


def _imported() -> ModuleType:
    try:
        with _no_warnings():  # about names in timm that have moved
            import robustbench
            import robustbench.utils
    except Exception as error:
        raise ForeignModelError(
            f"robustbench {robustbench_version()} cannot be imported ({first_line(error)}); its requirements are those of "
            "`pip install robustbench`"
        ) from error
    package: ModuleType = robustbench
    return package


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _take_back(finder: StandInFinder, present: set[str]) -> None:
    """Restore ``sys.modules``, unless no stand-in was needed: then robustbench stays imported."""
    broken = _PACKAGE not in sys.modules
    if not (finder.used or _private or broken):
        return
    theirs = [name for name in sys.modules if name in STAND_INS or name.partition(".")[0] == _PACKAGE]
    taken = {name: sys.modules.pop(name) for name in theirs if name not in present}
    if not broken:
        _private.update(taken)


@contextmanager
def _timm_names() -> Iterator[None]:
    """Restore timm's model registry afterwards; what robustbench registered is available again in the next context."""
    try:
        with _no_warnings():
            registry = importlib.import_module("timm.models._registry")
    except ImportError:  # robustbench's own import fails with a message, or does not need timm
        yield
        return
    before = _contents(registry)
    _fill(registry, _registered)
    try:
        yield
    finally:
        if _PACKAGE not in sys.modules:
            _registered.update(_contents(registry))
            _fill(registry, before)


_registered: dict[str, Any] = {}


def _contents(registry: ModuleType) -> dict[str, Any]:
    """Return shallow copies of the containers that a registry consists of."""
    kept = {name: value for name, value in vars(registry).items() if name.startswith("_") and isinstance(value, dict | set)}
    return {name: _copied(value) for name, value in kept.items() if not name.startswith("__")}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: type(each)(each) if isinstance(each, set | list | dict) else each for key, each in value.items()}
    return set(value)


def _fill(registry: ModuleType, contents: dict[str, Any]) -> None:
    for name, value in contents.items():
        container = getattr(registry, name)
        container.clear()
        container.update(_copied(value))

"""Imports robustbench beside packages that it was not written for, without anybody else noticing."""

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

_PACKAGE = "robustbench"
_private: dict[str, ModuleType] = {}
"""Modules of robustbench that were imported with stand-ins; they are in ``sys.modules`` only while they are in use."""


@contextmanager
def robustbench_package() -> Iterator[ModuleType]:
    """The package robustbench, to be used inside the context; what it prints goes to the error stream.

    Robustbench 1.1.1 imports ``autoattack`` (PyPI has ``pyautoattack`` alone) and ``pkg_resources`` (gone from setuptools 81).
    Where these are missing, stand-ins take their place while the context lasts. Afterwards ``sys.modules`` and timm's
    registry of names are as before, so that nobody gets a robustbench with stand-ins in it, or robustbench's networks under
    timm's names. Where they are not missing, or are not asked for, this is an ordinary import.

    Raises:
        ForeignModelError: robustbench is not installed, or cannot be imported for another reason.
    """
    if _PACKAGE in sys.modules:  # somebody else's, or ours of an outer context: it works
        yield sys.modules[_PACKAGE]
        return
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ForeignModelError(
            "the package robustbench is not installed: `pip install robustbench`, or in a clone of exitbench "
            "`pip install -c constraints.txt -e '.[robustbench]'`"
        )
    finder, present = StandInFinder(), set(sys.modules)
    sys.modules.update(_private)
    sys.meta_path.append(finder)
    try:
        with _timm_names(), redirect_stdout(sys.stderr):
            try:
                yield _imported()
            finally:
                _take_back(finder, present)
    finally:
        sys.meta_path.remove(finder)


def robustbench_version() -> str:
    """The version that is installed.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not.
    """
    return importlib.metadata.version(_PACKAGE)


def _imported() -> ModuleType:
    try:
        with _no_warnings():  # of names of timm's that it uses and that have moved
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
    """Leave ``sys.modules`` as it was, unless all went without help: then robustbench stays, as after any import."""
    broken = _PACKAGE not in sys.modules
    if not (finder.used or _private or broken):
        return
    theirs = [name for name in sys.modules if name in STAND_INS or name.partition(".")[0] == _PACKAGE]
    taken = {name: sys.modules.pop(name) for name in theirs if name not in present}
    if not broken:
        _private.update(taken)


@contextmanager
def _timm_names() -> Iterator[None]:
    """Put timm's registry of names back afterwards; what robustbench registered is there again the next time."""
    try:
        with _no_warnings():
            registry = importlib.import_module("timm.models._registry")
    except ImportError:  # robustbench's own import will tell, or it needs none
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
    """Copies of the containers that a registry consists of; what is in them is shared."""
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

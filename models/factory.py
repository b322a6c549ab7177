"""Networks built by the user's own function, given as ``path/to/file.py:factory`` or ``package.module:factory``.

Arguments may stand behind either, as in a call (``exitbench.models.reference``).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from exitbench.models.error_text import first_line
from exitbench.models.foreign import ForeignModelError
from exitbench.models.reference import NO_ARGUMENTS, Arguments, split_call, without_call
from exitbench.models.safe_name import safe_name
from exitbench.models.user_code import EndedByUserCode, contained
from exitbench.models.user_imports import FORMER_NAMES, OWN_NAMES, imports_for, imports_from, package_of, without_arguments
from exitbench.models.zoo.published import is_published, published_name

_log = logging.getLogger(__name__)

_OPTIONS = ("args", "opt", "opts", "options", "cfg", "config", "hparams")
"""Usual names of an argument that holds a script's parsed options."""


def is_reference(model: str) -> bool:
    """Return whether ``model`` is a reference to a factory, by file or by module.

    Registered names have neither a colon nor a suffix. Names of published networks have a colon, too
    (``exitbench.models.zoo.published``).
    """
    return (":" in model or model.endswith(".py")) and not is_published(model)


def reported_name(model: str) -> str:
    """Return the name, in reports, of the network that is given as ``model`` on the command line; nothing is executed."""
    if is_published(model):
        return published_name(model)
    return factory_name(model) if is_reference(model) else model


def factory_name(reference: str) -> str:
    """Return the name, in reports, of the network that ``reference`` builds; nothing is executed."""
    called, arguments = without_call(reference)
    place, name = _parts(called)
    return safe_name(f"{Path(place).stem if _is_file(place) else place}.{name}{arguments}")


def absolute_reference(reference: str) -> str:
    """Return a reference to the same factory that is valid from any working directory."""
    called, arguments = without_call(reference)
    place, name = _parts(called)
    return f"{Path(place).absolute()}:{name}{arguments}" if name and _is_file(place) else reference


def _parts(reference: str) -> tuple[str, str]:
    place, colon, name = reference.rpartition(":")
    return (place, name) if colon else (reference, "")


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


@dataclass(frozen=True)
class Factory:
    """A function that builds a network, found but not yet called.

    Attributes:
        name: Name of the network in reports, fit for file names: that of the file or module, and that of the function.
        where: The reference without folders, such as ``tiny.py:make``.
        module: The module that defines the function; it has been executed.
        make: The function.
        arguments: What it is called with.
    """

    name: str
    where: str
    module: ModuleType
    make: Callable[..., Any]
    arguments: Arguments = NO_ARGUMENTS

    @property
    def called(self) -> str:
        """``where``, with the arguments."""
        return f"{self.where}{self.arguments.text}"

    def call(self) -> Any:
        """Call the function and return what it returns, from the same random state of torch every time.

        Raises:
            ForeignModelError: If the function raises.
        """
        with self.at_home():
            torch.manual_seed(0)
            by_place, by_name = self.arguments.values()
            return self.make(*by_place, **by_name)

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Run code of the module where its imports work, without our command line's arguments; its errors are explained.

        Raises:
            ForeignModelError: If the code raises.
        """
        with (
            imports_for(Path(self.module.__file__ or "."), self.module.__package__ or ""),
            without_arguments(),
            _explained(self.where, self.module.__file__),
        ):
            yield

    def build(self) -> nn.Module:
        """Build the network anew, from the same random state of torch every time; the caller's state is restored.

        Raises:
            ForeignModelError: If the function raises, or returns anything but an ``nn.Module``.
        """
        net = self.call()
        if not isinstance(net, nn.Module):
            hint = " (does it end in `return net`?)" if net is None else ""
            raise ForeignModelError(f"{self.where} returned {type(net).__name__}{hint}; it must return a torch.nn.Module")
        return net


def find_factory(reference: str) -> Factory:
    """Execute the file or import the module that ``reference`` names, and look up the function in it.

    The file's code is executed: it is the user's own.

    Raises:
        ForeignModelError: If the file, module or function does not exist, or the code raises. The message lists the functions
            that the module defines.
    """
    called, arguments = split_call(reference)
    place, name = _parts(called)
    is_file = _is_file(place)
    if not place:
        raise ForeignModelError(f"{reference!r} names no file; the forms are path/to/file.py:factory and package.module:factory")
    module = _file_module(Path(place)) if is_file else _package_module(place)
    where = f"{Path(place).name if is_file else place}:{name}"
    if not name or not hasattr(module, name):
        defined = _names(module)
        near = difflib.get_close_matches(name, defined, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        what = f"has no {name!r}" if name else "is named without a factory; add one, as in file.py:factory"
        raise ForeignModelError(f"{place} {what}{hint} (it defines: {', '.join(defined) or 'nothing'})")
    make = _checked(getattr(module, name), where, arguments)
    return Factory(factory_name(f"{called}{arguments.text}"), where, module, make, arguments)


def _checked(make: Callable[..., Any], where: str, arguments: Arguments) -> Callable[..., Any]:
    """Return ``make`` if it can be called with these arguments, else raise ``ForeignModelError``."""
    if isinstance(make, nn.Module) or not callable(make):
        what = f"a network ({type(make).__name__})" if isinstance(make, nn.Module) else type(make).__name__
        raise ForeignModelError(f"{where} is {what}, not a factory; wrap it in a function that takes no arguments and returns it")
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # a callable not written in Python has no signature; the call will show
        return make
    if arguments.text:
        by_place, by_name = arguments.values()
        try:
            signature.bind(*by_place, **by_name)
        except TypeError as error:
            raise ForeignModelError(f"{where}{signature} does not take {arguments.text}: {error}") from error
        return make
    parameters = signature.parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each.name for each in parameters if each.default is each.empty and each.kind not in variadic]
    if needed:
        value = "Namespace(...)" if needed[0] in _OPTIONS else "..."
        raise ForeignModelError(
            f"{where} needs arguments ({', '.join(needed)}); give them as in a call, '{where}({needed[0]}={value})' (the quotes "
            f"are for the shell), or name a function that takes none, such as "
            f"`def make(): return {where.rpartition(':')[2]}({needed[0]}=...)`"
        )
    return make


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [each.name for each in path.parent.glob("*.py")], n=1, cutoff=0.5)
        hint = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
        raise ForeignModelError(f"there is no file {path}{hint}")
    path = path.resolve()
    package = package_of(path)
    # The path is part of the name: two files called net.py are two modules. The package is, for relative imports.
    own = f"_factory_{safe_name(path.stem)}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    name = f"{package}.{own}" if package else own
    spec = importlib.util.spec_from_loader(name, _Fresh(name, str(path)))
    assert spec is not None  # noqa: S101 - for the type checker: a loader is given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as import does: data classes and pickles look their module up
    try:
        with _explained(str(path), str(path)), imports_for(path, package), without_arguments():
            module.__loader__.exec_module(module)  # type: ignore[union-attr]
    except ForeignModelError:
        del sys.modules[name]
        raise
    return module


class _Fresh(importlib.machinery.SourceFileLoader):
    """A loader that compiles the file anew; it neither reads nor writes cached bytecode, which may be outdated."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _package_module(name: str) -> ModuleType:
    with _explained(name, None), imports_from(Path.cwd()), without_arguments():
        return importlib.import_module(name)


@contextmanager
def _explained(what: str, file: str | None) -> Iterator[None]:
    """Turn any error of the user's code into a ``ForeignModelError`` of one line that says where it was raised."""
    try:
        with contained():
            yield
    except ForeignModelError:
        raise
    except Exception as error:
        _log.info("%s failed", what, exc_info=True)
        raised = error.__cause__ if isinstance(error, EndedByUserCode) and error.__cause__ else error
        raise ForeignModelError(f"{what} failed{_line(raised, file)}: {first_line(raised)}{_hint(raised, file)}") from error


def _line(error: BaseException, file: str | None) -> str:
    """Return the last line of the user's file that the error passed through, as text."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" in line {lines[-1]}" if lines else ""


def _hint(error: BaseException, file: str | None) -> str:
    if isinstance(error, SystemExit):
        return "; what only a script is to run, such as the parsing of its options, belongs under `if __name__ == '__main__':`"
    if isinstance(error, ImportError) and "relative import" in str(error) and file is not None:
        path = Path(file)
        return (
            f"; a relative import needs a package: put an empty __init__.py into {path.parent}, or, from {path.parent.parent}, "
            f"say {path.parent.name}.{path.stem}:FACTORY"
        )
    missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if missing and file is not None and (root := _folder_with(missing.partition(".")[0], Path(file))) is not None:
        dotted = ".".join(Path(file).relative_to(root).with_suffix("").parts)
        return f"; it is in {root}: from there, say {dotted}:FACTORY"
    return f" ({OWN_NAMES})" if missing and missing.partition(".")[0] in FORMER_NAMES else ""


def _folder_with(name: str, file: Path) -> Path | None:
    """Return the folder above a file's own, at most three up, that has a module or package of this name."""
    for folder in list(file.parents)[1:4]:
        if not all(part.isidentifier() for part in file.relative_to(folder).parts[:-1]):
            return None
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            return folder
    return None


def _names(module: ModuleType) -> list[str]:
    """Return the names in a module that may be factories: public functions and classes that it defines itself."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and callable(value)}
    return [name for name, value in own.items() if getattr(value, "__module__", None) == module.__name__ or _is_net(value)]


def _is_net(value: Any) -> bool:
    return isinstance(value, nn.Module)

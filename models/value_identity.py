"""Describes Python values, functions and classes such that two descriptions differ wherever what they compute may."""

from __future__ import annotations

import enum
import hashlib
import inspect
import io
import logging
import random
import re
import sys
import types
import weakref
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from exitbench.models.own_code import is_own, is_users
from exitbench.models.spec import digest

DEPTH = 8
"""Levels of containers and objects that are looked into."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, enum.Enum, np.generic, torch.dtype, torch.device, slice, range, Path)
_NAMED_ONLY = (types.ModuleType, logging.Logger, logging.Handler, io.IOBase, weakref.ref, types.GeneratorType, types.FrameType)
"""Values that take no part in what is computed, or whose state cannot be described."""

_BOOKKEEPING = set(vars(nn.Module()))
_FACTORY = re.compile(r"^_factory_(.*)_[0-9a-f]{12}(?=\.|$)")
_NOT_READ = {
    "__module__",
    "__doc__",
    "__dict__",
    "__weakref__",
    "__annotations__",
    "__parameters__",
    "__static_attributes__",
    "__firstlineno__",
}


class Describer:
    """Describes values, each once: where a value is met again, its number stands in its place, so that cycles end."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, object]] = {}

    def text(self, value: Any, depth: int = DEPTH) -> str:
        """Return the description of ``value``: the same in every process, as far as the value is."""
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, _NAMED_ONLY) or depth <= 0:
            return class_name(type(value))
        if id(value) in self._met:
            return f"number {self._met[id(value)][0]}"
        self._met[id(value)] = (len(self._met), value)
        return hashlib.sha256("\0".join(self._parts(value, depth - 1)).encode(errors="backslashreplace")).hexdigest()

    def module(self, module: nn.Module, depth: int = DEPTH) -> list[str]:
        """Return name, settings, attributes and hooks of a module and of all in it; tensors of parameters are not among them."""
        found = []
        for name, each in module.named_modules():
            found += [name, class_name(type(each)), each.extra_repr(), str(getattr(each, "code", ""))]
            found += self._items({key: value for key, value in vars(each).items() if key not in _BOOKKEEPING}, depth)
            hooks = {key: list(value.values()) for key, value in vars(each).items() if key.endswith("_hooks") and value}
            found += self._items(hooks, depth)
            found.append(self.text(type(each), depth))
        return found

    def _parts(self, value: Any, depth: int) -> list[str]:
        name = class_name(value if isinstance(value, type) else type(value))
        if isinstance(value, (Tensor, np.ndarray, torch.Generator, random.Random)):
            found = [_array(value)]
        elif isinstance(value, type):
            found = self._class(value, depth)
        elif isinstance(value, types.FunctionType):
            found = self._function(value, depth)
        elif isinstance(value, nn.Module):
            tensors = dict([*value.named_parameters(), *value.named_buffers()])
            found = [*self.module(value, depth), *self._items(tensors, depth)]
        else:
            found = self._content(value, depth)
        return [name, *found]

    def _content(self, value: Any, depth: int) -> list[str]:
        """Return what containers, bound functions and other objects hold."""
        found = []
        if isinstance(value, Mapping):
            found += [part for key, each in value.items() for part in (self.text(key, depth), self.text(each, depth))]
        elif isinstance(value, Set):
            found += sorted(Describer().text(each, depth) for each in value)
        elif isinstance(value, Sequence):
            found += [self.text(each, depth) for each in value]
        elif isinstance(value, partial):
            found += [self.text(each, depth) for each in (value.func, value.args, value.keywords)]
        if isinstance(value, types.MethodType):
            return [*found, self.text(value.__func__, depth), self.text(value.__self__, depth)]
        if callable(value) and hasattr(value, "__qualname__"):
            found += [str(value.__qualname__), self.text(getattr(value, "__self__", None), depth)]
        state = _state(value)
        return [*found, *self._items(state, depth)] if state else [*found, *self._reduced(value, depth)]

    def _reduced(self, value: Any, depth: int) -> list[str]:
        """Return what a value without attributes is pickled from."""
        if isinstance(value, (Mapping, Set, Sequence, partial)) or callable(value):
            return []
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 - somebody's class: it cannot be pickled, and its name must do
            return []
        return [self.text(part, depth) for part in reduced[1:3]] if isinstance(reduced, tuple) else [str(reduced)]

    def _items(self, named: Mapping[str, Any], depth: int) -> list[str]:
        return [part for name in sorted(named) for part in (name, self.text(named[name], depth))]

    def _class(self, kind: type, depth: int) -> list[str]:
        """Return name, code and attributes of a class and of those that it is derived from."""
        found = []
        for each in kind.__mro__:
            found.append(class_name(each))
            if not _has_own_code(each.__module__):
                continue
            text = _source(each)
            found.append(text or "")
            for name, value in sorted(vars(each).items()):
                if name in _NOT_READ:
                    continue
                function = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", None) or value))
                if isinstance(function, types.FunctionType) and text is not None and _stands_in(function, each):
                    found += [name, *self._globals(function, depth)]
                elif not isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType)):
                    found += [name, self.text(value, depth)]
        return found

    def _function(self, function: types.FunctionType, depth: int) -> list[str]:
        held = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        found = [f"{plain_module(function.__module__)}.{function.__qualname__}"]
        found += [self.text(each, depth) for each in (function.__defaults__, function.__kwdefaults__, held)]
        if not _has_own_code(function.__module__):
            return found
        return [*found, bytecode(function.__code__), *self._globals(function, depth)]

    def _globals(self, function: types.FunctionType, depth: int) -> list[str]:
        """Return the values of the global names that a function reads, those of the user's modules included."""
        found: dict[str, Any] = {}
        names = set(_names(function.__code__))
        for name in names & set(function.__globals__):
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType) and _has_own_code(value.__name__):
                found |= {f"{name}.{each}": vars(value)[each] for each in names & set(vars(value))}
            else:
                found[name] = value
        return self._items(found, depth)


def class_name(kind: type) -> str:
    """Return the name of a class with its module, for a user's file without the folder that it lies in."""
    return f"{plain_module(kind.__module__)}.{kind.__qualname__}"


def plain_module(name: str | None) -> str:
    """Return the name of a module, for a user's file without the digest of the folder that it lies in."""
    return _FACTORY.sub(r"\1", name or "")


def bytecode(code: types.CodeType) -> str:
    """Return the SHA-256 (hex) of what a function does, wherever it stands."""
    constants = [bytecode(each) if isinstance(each, types.CodeType) else _constant(each) for each in code.co_consts]
    names = (code.co_names, code.co_freevars, code.co_cellvars, code.co_argcount)
    return hashlib.sha256(repr((code.co_code, constants, names)).encode()).hexdigest()


def _constant(value: object) -> str:
    return f"set {sorted(map(repr, value))}" if isinstance(value, frozenset) else repr(value)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _names(each)


def _state(value: object) -> dict[str, Any]:
    """Return the attributes of an object, those in slots included."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return {str(name): each for name, each in found.items()}


def _array(value: Tensor | np.ndarray[Any, Any] | torch.Generator | random.Random) -> str:
    if isinstance(value, random.Random):
        return repr(value.getstate())
    if isinstance(value, torch.Generator):
        value = value.get_state()
    if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
        return "uninitialised"  # of a lazy layer: its tensors are told apart once they are made
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            return f"{value.dtype} {tuple(value.shape)} {value!r}"
        value = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        shape, kind = tuple(value.shape), str(value.dtype)
        raw = value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return f"{kind} {shape} {hashlib.sha256(raw).hexdigest()}"
    raw = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    return f"{value.dtype} {value.shape} {hashlib.sha256(raw).hexdigest()}"


def _has_own_code(module: str | None) -> bool:
    """Return whether a module is the user's, whose code is part of what it makes: no installed package, nor exitbench."""
    if not module or module == "builtins" or is_own(module):
        return False
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    return (
        (module == "__main__" or found is None or module.startswith("_factory_")) if file is None else is_users(_resolved(file))
    )


def _resolved(file: str) -> Path:
    return Path(file).resolve()


def _source(kind: type) -> str | None:
    """Return the source of a class that stands in a file; None for one typed at a prompt."""
    try:
        file = inspect.getsourcefile(kind)
        return inspect.getsource(kind) if file and Path(file).is_file() else None
    except (OSError, TypeError):
        return None


def _stands_in(function: types.FunctionType, kind: type) -> bool:
    """Return whether a function is part of the source of a class, and not assigned to it later."""
    file = inspect.getsourcefile(kind)
    return function.__code__.co_filename == file and function.__qualname__.startswith(f"{kind.__qualname__}.")


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def class_digest(kind: type) -> str:
    """Return the SHA-256 (hex) of the code of a class from outside exitbench: its package's files, or what was typed in."""
    package = sys.modules.get(kind.__module__.partition(".")[0])
    module = sys.modules.get(kind.__module__)
    if package is not None and getattr(package, "__path__", None) and package is not module:
        files = [path for place in package.__path__ for path in Path(place).rglob("*.py")]
    else:
        file = getattr(module, "__file__", None)
        files = [Path(file)] if file and Path(file).is_file() else []
    if not files:
        return digest(Describer().text(kind))
    return digest(sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))

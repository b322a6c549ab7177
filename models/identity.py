"""Digests of the source files and of the tensors of a network of the user's own."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import torch
from torch import nn

from exitbench.models.own_code import is_users
from exitbench.models.spec import digest


def source_digest(net: nn.Module, module: ModuleType) -> str:
    """Return the SHA-256 (hex) over the source files of the factory's module and of all the user's own code that it builds on.

    These are the modules that it imports, directly or not, and those that define the classes of the network's layers. Installed
    packages, such as torch, are left out.
    """
    return digest(sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in source_files(net, module)))


def source_files(net: nn.Module, module: ModuleType) -> list[Path]:
    """Return the files that ``source_digest`` covers, the factory's first."""
    waiting = [module, *(sys.modules[type(layer).__module__] for layer in net.modules() if type(layer).__module__ in sys.modules)]
    found: dict[Path, ModuleType] = {}
    while waiting:
        one = waiting.pop(0)
        path = _source(one)
        if path is None or path in found or (one is not module and not is_users(path)):
            continue
        found[path] = one
        for value in list(vars(one).values()):
            origin = value if isinstance(value, ModuleType) else sys.modules.get(_home(value))
            if origin is not None:
                waiting.append(origin)
    return list(found)


def tensors_digest(net: nn.Module) -> str:
    """Return the SHA-256 (hex) over name, type, shape and values of every parameter and buffer, non-persistent ones included."""
    summed = hashlib.sha256()
    for name, tensor in sorted([*net.named_parameters(), *net.named_buffers()]):
        plain = tensor.detach().cpu().contiguous()
        summed.update(repr((name, str(plain.dtype), tuple(plain.shape))).encode())
        summed.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return summed.hexdigest()


def _home(value: object) -> str:
    """Return the name of the module that defines a function or class, or the class of any other value."""
    defined = value if isinstance(value, (type, FunctionType)) else type(value)
    return str(defined.__module__)


def _source(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    path = Path(file).resolve() if file else None
    return path if path is not None and path.is_file() else None

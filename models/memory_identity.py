"""Identifies networks in memory by their structure, attributes, code, tensors and outputs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.identity import tensors_digest
from exitbench.models.own_code import is_own
from exitbench.models.spec import digest

_NOT_OURS = {"torch", "torchvision", "builtins"}
_BOOKKEEPING = set(vars(nn.Module()))  # parameters, buffers, submodules and hooks, which are covered by name

SCALES = (0.1, 0.5, 1.0)
"""Scales of the noise for the fingerprint."""


def object_digest(net: nn.Module, model: EarlyExitNet, shape: tuple[int, int, int]) -> str:
    """Return a SHA-256 (hex) that two networks share only if they compute the same, as far as this can be checked.

    It covers the classes of all submodules with their code, their plain attributes and settings, all tensors, and the logits of
    all exits on fixed noise at several scales. In case of doubt, equal networks get different digests, and results are computed
    again.

    Args:
        net: The network as passed by the user, in evaluation mode.
        model: ``net`` as it is evaluated.
        shape: Shape ``(C, H, W)`` of an image.
    """
    modules = [
        (name, _class_name(type(module)), module.extra_repr(), _attributes(module)) for name, module in net.named_modules()
    ]
    code = {_class_name(kind): _code(kind) for kind in _classes(net)}
    return digest({"modules": modules, "code": code, "tensors": tensors_digest(net), "logits": fingerprint(model, shape)})


@torch.no_grad()
def fingerprint(model: EarlyExitNet, shape: tuple[int, int, int]) -> str:
    """Return a digest of the logits of all exits on fixed noise, rounded to a hundredth of their spread.

    Args:
        model: The network, in evaluation mode.
        shape: Shape ``(C, H, W)`` of an image.
    """
    device = next(model.parameters()).device
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([model((scale * noise).to(device)) for scale in SCALES], dim=1).float().cpu()
    spread = (logits.flatten(1).amax(1) - logits.flatten(1).amin(1)).clamp_min(1e-12)
    steps = (logits / (0.01 * spread[:, None, None])).nan_to_num(0.0, 0.0, 0.0).round().to(torch.int64)
    return hashlib.sha256(steps.numpy().tobytes()).hexdigest()


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _classes(net: nn.Module) -> Iterator[type]:
    """Yield the classes of all submodules, and their bases, that are neither torch's nor exitbench's."""
    for kind in dict.fromkeys(base for module in net.modules() for base in type(module).__mro__):
        if kind.__module__.partition(".")[0] not in _NOT_OURS and not is_own(kind.__module__):
            yield kind


def _code(kind: type) -> str:
    """Return the source of a class, or, if there is none (as at a prompt), a digest of its functions' bytecode."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        functions = [value for value in vars(kind).values() if isinstance(value, FunctionType)]
        return digest([_bytecode(function.__code__) for function in functions])


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return hashlib.sha256(repr((code.co_code, constants, code.co_names)).encode()).hexdigest()


def _attributes(module: nn.Module) -> dict[str, str]:
    """Return the module's own attributes as texts, hooks included, training mode excluded."""
    found = {name: _text(value) for name, value in vars(module).items() if name not in _BOOKKEEPING}
    hooks = {name: value for name, value in vars(module).items() if name.endswith("_hooks") and value}
    return {**found, **{name: _text(dict(value)) for name, value in hooks.items()}}


def _text(value: Any, depth: int = 6) -> str:
    """Return a text that differs wherever the value does, as far as this can be checked, ``depth`` levels deep."""
    if isinstance(value, (Tensor, np.ndarray)):
        plain = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        return f"{plain.dtype} {plain.shape} {hashlib.sha256(np.ascontiguousarray(plain).tobytes()).hexdigest()}"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    if isinstance(value, FunctionType):
        return f"{value.__qualname__} {_bytecode(value.__code__)}"
    name = _class_name(value if isinstance(value, type) else type(value))
    parts: list[str] = []
    if depth and isinstance(value, Sequence):
        parts = [_text(each, depth - 1) for each in value]
    elif depth and not isinstance(value, (type, nn.Module)):
        state = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        parts = [f"{key!r}: {_text(each, depth - 1)}" for key, each in state.items()]
    return f"{name} ({', '.join(parts)})"

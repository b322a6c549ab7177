"""Makes a network of the user's own plain: not compiled, and with every parameter there."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from exitbench.models.error_text import first_line
from exitbench.models.foreign import ForeignModelError

UNCOMPILED = "torch.compile was undone: compiled code gives no gradient twice, as the checks need it"
"""What a report says of a network from which ``without_compilation`` took something."""


def without_compilation(net: nn.Module) -> tuple[nn.Module, bool]:
    """Return a network in which nothing is compiled, changed in place, and whether anything was.

    Modules that ``torch.compile`` returned, modules compiled in place, and compiled ``forward`` methods are covered; functions
    that ``forward`` calls are not.
    """
    plain = _original(net)
    found = plain is not net
    for module in list(plain.modules()):
        for name, child in module._modules.items():
            if child is not None and (original := _original(child)) is not child:
                module._modules[name], found = original, True
    for module in plain.modules():
        in_place = module.__dict__.pop("_compiled_call_impl", None) is not None
        found = _with_own_forward(module) or in_place or found
    return plain, found


def _original(module: nn.Module) -> nn.Module:
    """Return what a module that ``torch.compile`` returned was made of, and any other module itself."""
    part = sys.modules.get("torch._dynamo.eval_frame")  # without it, nothing was compiled
    return module._orig_mod if part is not None and isinstance(module, part.OptimizedModule) else module


def _with_own_forward(module: nn.Module) -> bool:
    """Put back the ``forward`` that was compiled; return whether it was."""
    forward: Callable[..., Any] = module.forward
    original = getattr(forward, "_torchdynamo_orig_callable", None)
    if original is None:
        return False
    method = inspect.unwrap(original)
    if isinstance(method, MethodType) and method.__func__ is type(module).forward:
        del module.forward
    else:
        module.forward = MethodType(original, module) if isinstance(forward, MethodType) else method
    return True


def initialise(net: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Give the lazy layers of a network their parameters by a run on one black image, from the same random state every time.

    A network without lazy layers is not run.

    Raises:
        ForeignModelError: If the network cannot run the image, or some parameter has no shape even then.
    """
    if not lazy_tensors(net):
        return
    shape = "x".join(map(str, input_shape))
    was_training = net.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            net.eval()(torch.zeros(1, *input_shape))
    except Exception as error:
        message = f"its lazy layers could not be initialised by a run on an image of {shape} ({first_line(error)})"
        raise ForeignModelError(message) from error
    net.train(was_training)
    if left := lazy_tensors(net):
        raise ForeignModelError(f"a run on an image of {shape} does not reach the lazy parameter {left[0]}; give it its shape")


def lazy_tensors(net: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers that have no shape yet."""
    return [name for name, tensor in (*net.named_parameters(), *net.named_buffers()) if is_lazy(tensor)]

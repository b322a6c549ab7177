"""Builds networks without weights, on torch's meta device, to count their operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_META = torch.device("meta")
_FILLED = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


def sketch(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with its tensors on the meta device, but for those of a single number, which keep their value.

    Networks read such numbers (a mixing weight, a threshold) to decide what to run, and torch mixes them with tensors of any
    device. No GPU is needed even if ``make`` asks for one.
    """
    with Sketching():
        net = make().eval().requires_grad_(False)
    own_constants(net)
    for module in net.modules():
        kinds: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in kinds:
            for name, tensor in tensors.items():
                if tensor is not None and tensor.ndim:
                    moved = tensor.detach().to(_META)
                    tensors[name] = nn.Parameter(moved, False) if isinstance(tensor, nn.Parameter) else moved
    return net


class Sketching(TorchFunctionMode):
    """A function mode that creates tensors without values on the meta device, and none on a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.cuda:
            return args[0]
        if func is Tensor.to and args[0].is_meta:  # it has no data that could be copied elsewhere
            args, kwargs = _without_device(args), {name: value for name, value in kwargs.items() if name != "device"}
            return func(*args, **kwargs) if len(args) > 1 or kwargs else args[0]
        if func in _FILLED and kwargs.get("device") is None and _has_shape(args, kwargs):
            kwargs["device"] = _META
        return func(*args, **kwargs)


class OnCpu(TorchFunctionMode):
    """A function mode that ignores ``Tensor.cuda`` while a network is built; the network is moved as a whole, later."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.cuda else func(*args, **(kwargs or {}))


def own_constants(net: nn.Module) -> None:
    """Register as buffers the tensors that modules keep as plain attributes, so that they move with the network."""
    for module in net.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                delattr(module, name)
                module.register_buffer(name, value, persistent=False)


def _without_device(args: Any) -> Any:
    """Return the arguments of ``Tensor.to`` without the device, which may be a device, its name or number, or another tensor."""
    return args[:1] + tuple(arg for arg in args[1:] if isinstance(arg, bool | torch.dtype))


def _has_shape(args: Any, kwargs: Any) -> bool:
    size = args[0] if args else kwargs.get("size", ())
    return bool(len(size)) if isinstance(size, list | tuple) else True

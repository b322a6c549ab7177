"""The layers whose bounds are known, by module, function and method of torch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exitbench.bounds.affine import Conv, Linear, Mean, Reshape, Scale
from exitbench.bounds.layer import Layer
from exitbench.bounds.nonlinear import Concat, MaxPool, ReLU, Sum
from exitbench.models.depthwise import DepthwiseConv2d
from exitbench.models.normalisation import Normalise


class Unknown(ValueError):
    """The bounds of a layer are not known; the message, if there is one, starts with a comma and says what of it."""


@dataclass(frozen=True)
class Value:
    """A tensor of a traced network.

    Attributes:
        number: Number of its node.
        sample: Its value for some two images, for its shape.
    """

    number: int
    sample: Tensor


_SAME = frozenset({"clone", "contiguous", "detach", F.dropout, F.dropout2d, torch.clone, torch.detach})
_RELU = frozenset({"relu", "relu_", F.relu, torch.relu, torch.relu_, F.relu_})
_RESHAPES = frozenset({"view", "reshape", "flatten", "squeeze", "unsqueeze", torch.flatten, torch.reshape, torch.squeeze})
_PLUS = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
_MINUS = frozenset({operator.sub, torch.sub, "sub"})
_TIMES = frozenset({operator.mul, operator.imul, torch.mul, "mul"})
_OVER = frozenset({operator.truediv, torch.div, "div"})


def layer_of(
    what: object, args: Sequence[Any], kwargs: Mapping[str, Any], values: Sequence[Value], output: Tensor
) -> Layer | None:
    """Return the layer that computes ``output`` from ``values``; None if it passes its only input on unchanged.

    Args:
        what: The module, the function, or the name of the method of the first argument.
        args, kwargs: What it is called with.
        values: The traced tensors among these, in order.
        output: What it returns for their samples.

    Raises:
        Unknown: If its bounds are not known.
    """
    given = values[0].sample
    if output.dtype != given.dtype or len(output) != len(given):
        raise Unknown(", which changes the type or mixes the images of a batch")
    if isinstance(what, nn.Module):
        if type(what) not in _MODULES:
            raise Unknown
        return _MODULES[type(what)](what, given, output)
    if what in _SAME:
        return None
    if what in _RELU:
        return ReLU()
    if what in _RESHAPES:
        return Reshape(tuple(output.shape[1:]))
    if what in (torch.cat, torch.concat):
        return _concat(args, kwargs, values, output)
    return _of_call(what, args, kwargs, values, output)


def _of_call(what: object, args: Sequence[Any], kwargs: Mapping[str, Any], values: Sequence[Value], output: Tensor) -> Layer:
    if what in (_PLUS | _MINUS | _TIMES | _OVER):
        return _arithmetic(what, args, kwargs, values)
    return _pooling(what, args, kwargs, values[0].sample, output)


def _conv(module: nn.Conv2d, given: Tensor, output: Tensor) -> Layer:
    if module.padding_mode != "zeros":
        raise Unknown(f", whose padding is {module.padding_mode}")
    return Conv(module)


def _normalise(module: Normalise, given: Tensor, output: Tensor) -> Layer:
    std, mean = module.std.double(), module.mean.double()
    return Scale(1 / std, -mean / std, (mean / std).abs(), rounded=4)


def _norm(module: nn.BatchNorm2d | nn.BatchNorm1d, given: Tensor, output: Tensor) -> Layer:
    if module.running_mean is None or module.running_var is None:
        raise Unknown(", which normalises by the statistics of its batch")
    weight = torch.ones_like(module.running_var) if module.weight is None else module.weight
    bias = torch.zeros_like(module.running_var) if module.bias is None else module.bias
    shape = (-1, *[1] * (output.ndim - 2))
    factor = (weight.double() / torch.sqrt(module.running_var.double() + module.eps)).detach().view(shape)
    mean, shift = module.running_mean.double().view(shape), bias.detach().double().view(shape)
    return Scale(factor, shift - factor * mean, 2 * (factor * mean).abs() + shift.abs(), rounded=12)


def _max_pool(kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False) -> Layer:
    if _pair(dilation) != (1, 1):
        raise Unknown(", which has a dilation")
    return MaxPool(_pair(kernel), _pair(kernel if stride in (None, []) else stride), _pair(padding), bool(ceil_mode))


def _adaptive_max(given: Tensor, output: Tensor) -> Layer:
    (height, width), (rows, columns) = given.shape[2:], output.shape[2:]
    if height % rows or width % columns:
        raise Unknown(f", which divides {height}x{width} into {rows}x{columns} windows of different sizes")
    kernel = (height // rows, width // columns)
    return MaxPool(kernel, kernel, (0, 0), False)


def _pooling(what: object, args: Sequence[Any], kwargs: Mapping[str, Any], given: Tensor, output: Tensor) -> Layer:
    if what in (F.max_pool2d, torch.max_pool2d):
        names = ("kernel", "stride", "padding", "dilation", "ceil_mode")
        given_names = {("kernel" if name == "kernel_size" else name): value for name, value in kwargs.items()}
        return _max_pool(**(dict(zip(names, args[1:], strict=False)) | {n: given_names[n] for n in names if n in given_names}))
    if what is F.adaptive_max_pool2d:
        return _adaptive_max(given, output)
    if what in (F.adaptive_avg_pool2d, F.avg_pool2d):
        return Mean(_Call(what, args[1:], kwargs), given[0, 0].numel() + 2)
    if what in ("mean", torch.mean):
        return _mean(_Call(torch.mean, args[1:], kwargs), given, output)
    raise Unknown


def _mean(call: _Call, given: Tensor, output: Tensor) -> Layer:
    if output.ndim < 2 or output[0].numel() == 0 or call(given[:1]).shape[0] != 1:
        raise Unknown(", over the images of a batch")
    return Mean(call, given[0].numel() + 2)


@dataclass(frozen=True)
class _Call:
    """A call of a function of torch with all but its first argument."""

    function: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self.function(x, *self.args, **self.kwargs)
        return found


def _concat(args: Sequence[Any], kwargs: Mapping[str, Any], values: Sequence[Value], output: Tensor) -> Layer:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % output.ndim
    parts = args[0] if args else kwargs["tensors"]
    if dim == 0 or len(parts) != len(values):
        raise Unknown(", of constants or of the images of a batch")
    return Concat(dim)


def _arithmetic(what: object, args: Sequence[Any], kwargs: Mapping[str, Any], values: Sequence[Value]) -> Layer:
    if kwargs or len(args) != 2:
        raise Unknown(", with further arguments")
    given, (left, right) = values[0].sample, args
    if len(values) == 2:
        if what not in _PLUS or values[0].sample.shape != values[1].sample.shape:
            raise Unknown(", of two features, other than a sum of equal shapes")
        return Sum()
    constant = torch.as_tensor(left if isinstance(right, Value) else right).detach().double()
    if constant.ndim > given.ndim or (constant.ndim == given.ndim and len(constant) != 1):
        raise Unknown(", with a constant of another shape")
    one = torch.ones(())
    if what in _TIMES:
        return Scale(constant)
    if what in _PLUS:
        return Scale(one, constant)
    if what in _MINUS:
        return Scale(-one, constant) if isinstance(right, Value) else Scale(one, -constant)
    if isinstance(right, Value):
        raise Unknown(", by features")
    return Scale(1 / constant)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _average(module: Any, given: Tensor, output: Tensor) -> Layer:
    """Return average pooling, whose windows have no more values than the image."""
    return Mean(module, given[0, 0].numel() + 2)


_MODULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Layer | None]] = {
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout), lambda module, given, output: None),
    **dict.fromkeys((nn.Conv2d, DepthwiseConv2d), _conv),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), _norm),
    **dict.fromkeys((nn.AvgPool2d, nn.AdaptiveAvgPool2d), _average),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), lambda module, given, output: Reshape(tuple(output.shape[1:]))),
    nn.Linear: lambda module, given, output: Linear(module),
    nn.ReLU: lambda module, given, output: ReLU(),
    nn.MaxPool2d: lambda module, given, output: _max_pool(
        module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
    ),
    nn.AdaptiveMaxPool2d: lambda module, given, output: _adaptive_max(given, output),
    Normalise: _normalise,
}

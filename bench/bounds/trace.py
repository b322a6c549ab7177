"""Reads the layers of a network off its forward pass, by symbolic tracing (``torch.fx``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from exitbench.bounds.interval import Interval
from exitbench.bounds.known import Unknown, Value, layer_of
from exitbench.bounds.network import Network, Node, interval_bounds
from exitbench.errors import UserError
from exitbench.models.depthwise import DepthwiseConv2d
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.foreign import ForeignNet
from exitbench.models.normalisation import Normalise
from exitbench.models.preceded import Preceded


class Unsupported(UserError):
    """A network has a layer whose bounds are not known; the message names it."""


class _Exits(nn.Module):
    """Returns the logits of all exits, of a network of somebody's own in the form in which it returns them."""

    def __init__(self, net: EarlyExitNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> object:
        first, net = (self.net.first, self.net.net) if type(self.net) is Preceded else (None, self.net)
        given = x if first is None else first(x)
        return net.as_returned(given) if isinstance(net, ForeignNet) else tuple(net.exits(given))


class _Tracer(fx.Tracer):
    """Keeps two modules of our own whole, beside those of torch."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DepthwiseConv2d | Normalise) or super().is_leaf_module(m, module_qualified_name)


class _Reader(fx.Interpreter):
    """Runs a graph on ``Value``s in place of tensors, and writes down the layers that it meets."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.nodes: list[Node] = []

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        module = self.fetch_attr(target)
        return self._applied(module, f"{target} ({type(module).__name__})", super().call_module, target, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        name = getattr(target, "__name__", str(target))
        if target is torch.stack and kwargs.get("dim", args[1] if len(args) > 1 else 0) == 0:
            return args[0] if args else kwargs["tensors"]  # exits in one tensor; anything else done with it is not known
        return self._applied(target, name, super().call_function, target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._applied(str(target), f"Tensor.{target}", super().call_method, target, args, kwargs)

    def _applied(
        self, what: object, name: str, run: Callable[..., Any], target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        found: list[Value] = []
        fx.node.map_aggregate((args, kwargs), lambda each: found.append(each) if isinstance(each, Value) else None)
        if not found:
            return run(target, args, kwargs)
        samples = fx.node.map_aggregate((args, kwargs), lambda each: each.sample if isinstance(each, Value) else each)
        sample = run(target, *samples)
        if not isinstance(sample, Tensor):
            return sample  # a shape, or a number that follows from one
        try:
            layer = layer_of(what, args, kwargs, found, sample)
        except Unknown as error:
            raise Unsupported(
                f"no bounds are known of the layer {name}{error}; nothing can be certified of this network"
            ) from error
        if layer is None:
            return Value(found[0].number, sample)
        self.nodes.append(Node(layer, tuple(each.number for each in found)))
        return Value(len(self.nodes), sample)


def traced(net: EarlyExitNet, input_shape: tuple[int, int, int]) -> Network:
    """Return the layers of a network in evaluation mode; they share its weights.

    Args:
        net: The network.
        input_shape: ``(C, H, W)`` of the images.

    Raises:
        Unsupported: If the network cannot be traced, or one of its layers has no bounds; the message names it.
    """
    if net.training:
        raise ValueError("bounds are those of a network in evaluation mode")
    whole = _Exits(net).eval()
    if any(module._forward_hooks or module._forward_pre_hooks for module in whole.modules()):
        raise Unsupported("the network has forward hooks, which may change its layers; nothing can be certified of it")
    try:
        graph = _Tracer().trace(whole)
    except Exception as error:  # a network of somebody's own may raise anything when it is given a placeholder
        raise Unsupported(f"the layers cannot be read off the network's forward pass: {first_line(error)}") from error
    reader = _Reader(fx.GraphModule(whole, graph))
    parameter = next(net.parameters(), torch.zeros(()))
    image = torch.full((2, *input_shape), 0.5, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad():
        exits = reader.run(Value(0, image))
    return Network(tuple(reader.nodes), _numbers(exits, net.n_exits))


def _numbers(exits: object, n_exits: int) -> tuple[int, ...]:
    """Return the nodes of the exits' logits, from what a network returned: one ``Value``, or several in a container."""
    found = [exits] if isinstance(exits, Value) else list(exits.values() if isinstance(exits, Mapping) else exits)  # type: ignore[call-overload]
    if len(found) == 1 and n_exits > 1:
        return _numbers(found[0], n_exits)
    if len(found) != n_exits or not all(isinstance(each, Value) and each.number for each in found):
        raise Unsupported(f"what the network returns is not the logits of {n_exits} exits alone; nothing can be certified of it")
    return tuple(each.number for each in found)


@torch.no_grad()
def ensure_same(network: Network, net: EarlyExitNet, images: Tensor) -> None:
    """Check that what was traced is what the network computes: its logits lie in the bounds of single images, which are
    rounding.

    Args:
        network: What was traced.
        net: The network, in fp32.
        images: A few images ``(B, C, H, W)``, fp32.

    Raises:
        Unsupported: If they do not.
    """
    logits = net(images).double()
    point = images.double()
    bounds = interval_bounds(network, Interval(point, point))
    for k, number in enumerate(network.exits):
        inside = (logits[k] >= bounds.of(number).low) & (logits[k] <= bounds.of(number).high)
        if not inside.all():
            raise Unsupported(f"exit {k + 1} computes something else than the layers read off its forward pass")

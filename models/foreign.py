"""Wraps a network of the user's own in the interface of ``EarlyExitNet``: it is run whole, and its outputs are split by exit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.user_code import forwarded

_FORMS = "a list or tuple of logits (B, classes), one per exit, a stacked tensor (exits, B, classes), or one tensor (B, classes)"


class ForeignModelError(InvalidValue):
    """A network, or its factory, cannot be evaluated as it is; the message says what was found and what is expected."""


class ForeignNet(EarlyExitNet):
    """A wrapper of a module that returns the logits of all its exits at once; no exit can be computed without the others.

    Args:
        net: A module that maps images ``(B, C, H, W)`` in [0, 1] to a list or tuple of logits ``(B, classes)``, one per exit, to
            a stacked tensor ``(K, B, classes)``, or, with one exit, to a tensor ``(B, classes)``. It may declare the cost of
            each exit as ``exit_costs``, in mmacs, including every head on the way. It is put into evaluation mode and fp32.
        input_shape: Shape ``(C, H, W)`` of an image; the form of the outputs is determined on noise of this shape.

    Attributes:
        n_classes: Number of classes, the same at every exit.
        note: What a report must say of how the network computes; None if nothing.

    Raises:
        ForeignModelError: If the outputs have another form, the network has no parameters, its ``exit_costs`` are invalid, or
            it raises an error.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if next(net.parameters(), None) is None:
            raise ForeignModelError(f"the network {type(net).__name__} has no parameters; there is nothing to evaluate")
        self.first = _Entry()
        self.net = net.float()
        self.eval()
        with _seen_dtypes() as dtypes:
            self.n_classes, self._n_exits = self._tried(input_shape)
        self.note = _precision_note(dtypes)
        self.exit_costs = _declared_costs(net, self._n_exits)

    @property
    def n_exits(self) -> int:
        return self._n_exits

    @property
    def entry(self) -> nn.Module:
        return self.first

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        yield from self(x)

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        last = self.n_exits - 1 if upto is None else upto
        if not 0 <= last < self.n_exits:
            raise ValueError(f"exit index {last} is outside 0..{self.n_exits - 1}")
        with forwarded():
            outputs = self.net(self.first(x))
        logits = _stacked(outputs, len(x), upto)
        if len(logits) != last + 1:
            raise ForeignModelError(f"the network returned {len(logits)} exits, at first it had {self.n_exits}")
        # Decisions are made in fp32; inside, the network may use half precision.
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        return _Preceded(first, self)

    @torch.no_grad()
    def _tried(self, input_shape: tuple[int, int, int]) -> tuple[int, int]:
        """Return the numbers of classes and exits, from several batch sizes: a shape such as (3, 3, 10) alone is ambiguous."""
        found = set()
        device = next(self.net.parameters()).device
        for size in (3, 2, 1):
            x = torch.rand(size, *input_shape, generator=torch.Generator().manual_seed(0)).to(device)
            try:
                with forwarded():
                    outputs = self.net(self.first(x))
            except Exception as error:
                shape, said = "x".join(map(str, input_shape)), " ".join(str(error).split())
                raise ForeignModelError(
                    f"the network cannot run a batch of {size} images of {shape} ({type(error).__name__}: {said})"
                    f"{_precision_hint(said)}"
                ) from error
            logits = _stacked(outputs, size, None)
            found.add((logits.shape[-1], len(logits)))
        if len(found) > 1:
            texts = ", ".join(f"{exits} exits of {classes} classes" for classes, exits in sorted(found))
            raise ForeignModelError(f"the network returns other outputs for batches of 3, 2 and 1 images: {texts}")
        return found.pop()


_HALF = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


@contextmanager
def _seen_dtypes() -> Iterator[set[torch.dtype]]:
    """Collect the data types of all that layers return while the context lasts."""
    found: set[torch.dtype] = set()

    def look(_layer: nn.Module, _inputs: object, outputs: object) -> None:
        found.update(each.dtype for each in tree_leaves(outputs) if isinstance(each, Tensor))

    handle = nn.modules.module.register_module_forward_hook(look)
    try:
        yield found
    finally:
        handle.remove()


def _precision_note(dtypes: set[torch.dtype]) -> str | None:
    halves = sorted(_HALF[dtype] for dtype in dtypes & _HALF.keys())
    if not halves:
        return None
    return f"the network computes in {' and '.join(halves)} inside: its rounding may hide gradients and decide verdicts"


def _precision_hint(said: str) -> str:
    """Return what to do where an error comes of two data types that meet."""
    if not any(word in said for word in ("Half", "BFloat16", "Double", "dtype")):
        return ""
    return (
        "; the network is evaluated in fp32, its parameters are turned to it: take .half(), .bfloat16() and .double() out of "
        "forward, or write x.to(next(self.parameters()).dtype)"
    )


class _Entry(nn.Module):
    """Passes images on as a contiguous copy: the user's code may call ``view`` on it, or write into it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone(memory_format=torch.contiguous_format)


class _Preceded(EarlyExitNet):
    """``net`` with the module ``first`` in front of it."""

    def __init__(self, first: nn.Module, net: EarlyExitNet) -> None:
        super().__init__()
        self.first, self.net = first, net

    @property
    def n_exits(self) -> int:
        return self.net.n_exits

    @property
    def entry(self) -> nn.Module:
        return self.net.entry

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        return self.net.exits(self.first(x))

    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        return _Preceded(first, self)


def _stacked(outputs: object, batch: int, upto: int | None) -> Tensor:
    """Return logits ``(K, B, classes)``, or those of the exits ``0..upto``, from a network's outputs for ``batch`` images."""
    if isinstance(outputs, Tensor):
        logits = outputs if outputs.ndim == 3 else outputs[None]
        if outputs.ndim not in (2, 3) or logits.shape[1] != batch:
            raise ForeignModelError(_shape_text(tuple(outputs.shape), batch))
        return _checked(logits if upto is None else logits[: upto + 1])
    if isinstance(outputs, dict):
        names = ", ".join(map(repr, outputs))
        raise ForeignModelError(f"the network returns a dictionary ({names}); it must return {_FORMS}: the values, in order")
    if not isinstance(outputs, (list, tuple)) or not outputs:
        what = "an empty list" if isinstance(outputs, (list, tuple)) else type(outputs).__name__
        raise ForeignModelError(f"the network returns {what}; it must return {_FORMS}")
    for k, logits in enumerate(outputs, start=1):
        if not isinstance(logits, Tensor):
            raise ForeignModelError(f"item {k} of what the network returns is {type(logits).__name__}; it must return {_FORMS}")
    shapes = [tuple(logits.shape) for logits in outputs]
    if any(len(shape) != 2 or shape[0] != batch for shape in shapes) or len(set(shapes)) > 1:
        raise ForeignModelError(
            f"the network returns tensors of shapes {', '.join(map(str, shapes))} for {batch} images; it must return {_FORMS}, "
            "and nothing else (no features, no losses)"
        )
    return _checked(torch.stack(list(outputs)[: None if upto is None else upto + 1]))


def _checked(logits: Tensor) -> Tensor:
    if not logits.is_floating_point():
        raise ForeignModelError(f"the network returns {logits.dtype}; it must return logits, not predictions")
    if not logits.shape[-1]:
        raise ForeignModelError("the network returns logits of no class")
    return logits


def _shape_text(shape: Sequence[int], batch: int) -> str:
    hint = ""
    if len(shape) == 3 and shape[0] == batch:
        hint = "; where that is (B, exits, classes), return logits.transpose(0, 1)"
    elif len(shape) == 1:
        hint = "; a batch of one image is a batch, too (no squeeze)"
    return f"the network returns a tensor of shape {tuple(shape)} for {batch} images; it must return {_FORMS}{hint}"


def _declared_costs(net: nn.Module, n_exits: int) -> tuple[float, ...] | None:
    declared = getattr(net, "exit_costs", None)
    if declared is None:
        return None
    try:
        costs = tuple(float(cost) for cost in declared)
    except (TypeError, ValueError):
        costs = ()
    fit = len(costs) == n_exits and all(math.isfinite(cost) and cost > 0 for cost in costs)
    if not fit or any(later < earlier for earlier, later in pairwise(costs)):
        raise ForeignModelError(
            f"the network's exit_costs are {declared!r}; they must be {n_exits} positive numbers that do not fall, in mmacs, "
            "one per exit, everything on the way included"
        )
    return costs

"""Wraps a network of the user's own in the interface of ``EarlyExitNet``: it is run whole, or yields its exits one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import ChangedOutputs, ForeignModelError
from exitbench.models.exits_agree import check_exits
from exitbench.models.outputs import Layout, Outputs, are_probabilities, gathered, joined, layouts, read_exit, read_outputs
from exitbench.models.preceded import Preceded
from exitbench.models.steps import has_forward, offered_steps
from exitbench.models.user_code import forwarded

__all__ = ["ForeignModelError", "ForeignNet"]


class ForeignNet(EarlyExitNet):
    """A wrapper of a module that returns the logits of all its exits at once, or yields them one by one as well.

    A module with a method ``exits(x)`` or ``iter_exits(x)`` that returns an iterator of logits, in order, is stopped at the exit
    that is asked for; each item is a tensor ``(B, classes)``, or a pair of that and the score of the exit's gate. In any other no
    exit can be computed without the others.

    Args:
        net: A module that maps images ``(B, C, H, W)`` in [0, 1] to logits in one of the forms of ``exitbench.models.outputs``,
            gate scores beside them. It may declare the cost of each exit as ``exit_costs``, in mmacs, including every head on
            the way. It is put into evaluation mode and fp32.
        input_shape: Shape ``(C, H, W)`` of an image; the form of the outputs is determined on noise of this shape.

    Attributes:
        n_classes: Number of classes, the same at every exit.
        note: What a report must say of how the network computes; None if nothing.

    Raises:
        ForeignModelError: If the outputs have another form, the network has no parameters, its ``exit_costs`` are invalid, it
            raises an error, or the exits that it yields differ from those that it returns.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if next(net.parameters(), None) is None:
            raise ForeignModelError(f"the network {type(net).__name__} has no parameters; there is nothing to evaluate")
        self.first = _Entry()
        self.net = net.float()
        self.eval()
        self._layout: Layout | None = None
        images = [_noise(size, input_shape).to(next(self.net.parameters()).device) for size in (3, 2, 1)]
        self._steps = offered_steps(self.net, images[0])
        self.stops = self._steps is not None
        with _seen_dtypes() as dtypes:
            self.n_classes, self._n_exits, self._layout = self._tried(images)
        self.has_gate_scores = self._layout is not None
        self.note = _precision_note(dtypes)
        self.exit_costs = _declared_costs(net, self._n_exits)
        check_exits(self, images[0])

    @property
    def n_exits(self) -> int:
        return self._n_exits

    @property
    def entry(self) -> nn.Module:
        return self.first

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        if self._steps is None:
            yield from self(x)
            return
        steps = self._steps.of(self.net, self.first(x))
        for k in range(self.n_exits):
            if (step := next(steps, None)) is None:
                raise ChangedOutputs(f"the network's {self._steps} yields {k} exits, at first it had {self.n_exits}")
            found = gathered([read_exit(step, len(x))], len(x))
            yield joined(found, "list", int(k < self.n_exits - 1))[0]
        if next(steps, None) is not None:
            raise ChangedOutputs(f"the network's {self._steps} yields more than {self.n_exits} exits, as many as it had at first")

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        last = self.n_exits - 1 if upto is None else upto
        if self.stops and (last < self.n_exits - 1 or not has_forward(self.net)):
            return super().forward(x, upto)
        if not 0 <= last < self.n_exits:
            raise ValueError(f"exit index {last} is outside 0..{self.n_exits - 1}")
        found = self._whole(x)
        if len(found.logits) != self.n_exits or (found.scores is not None) != self.has_gate_scores:
            scored, before = (" with gate scores" if each else "" for each in (found.scores is not None, self.has_gate_scores))
            raise ChangedOutputs(
                f"the network returned {len(found.logits)} exits{scored}, at first it had {self.n_exits}{before}: a network must "
                "return all of its exits for every batch, whatever is in it"
            )
        some = found if last == self.n_exits - 1 else Outputs(found.logits[: last + 1], found.scores)
        return joined(some, self._layout, min(last + 1, self.n_exits - 1))

    def as_returned(self, x: Tensor) -> object:
        """Return what the network itself returns for images, unread; the exits that it yields, if it does, as a list."""
        if self._steps is not None:
            return list(self._steps.of(self.net, self.first(x)))
        return self.net(self.first(x))

    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        return Preceded(first, self)

    def _whole(self, x: Tensor) -> Outputs:
        """Return the outputs of all exits."""
        if self._steps is not None and not has_forward(self.net):
            steps = self._steps.of(self.net, self.first(x))
            return gathered([read_exit(step, len(x)) for step in steps], len(x))
        with forwarded():
            return read_outputs(self.net(self.first(x)), len(x))

    @torch.no_grad()
    def _tried(self, images: Sequence[Tensor]) -> tuple[int, int, Layout | None]:
        """Return the numbers of classes and exits, and the layout of gate scores.

        Several batch sizes tell: a shape such as (3, 3, 10) alone is ambiguous.
        """
        found = []
        for x in images:
            try:
                outputs = self._whole(x)
            except ForeignModelError:
                raise
            except Exception as error:
                shape, said = "x".join(map(str, x.shape[1:])), " ".join(str(error).split())
                raise ForeignModelError(
                    f"the network cannot run a batch of {len(x)} images of {shape} ({type(error).__name__}: {said})"
                    f"{_precision_hint(said)}"
                ) from error
            found.append(outputs)
        sizes = {(outputs.logits[0].shape[-1], len(outputs.logits)) for outputs in found if len(outputs.logits)}
        if len(sizes) != 1:
            texts = ", ".join(f"{exits} exits of {classes} classes" for classes, exits in sorted(sizes)) or "no exit at all"
            raise ForeignModelError(f"the network returns other outputs for batches of 3, 2 and 1 images: {texts}")
        ((n_classes, n_exits),) = sizes
        return n_classes, n_exits, _layout(found, n_exits, [len(x) for x in images])


def _layout(found: Sequence[Outputs], n_exits: int, sizes: Sequence[int]) -> Layout | None:
    """Return how the gate scores are laid out; None where there are none.

    Raises:
        ForeignModelError: If they are laid out in no known way, or stand beside probabilities.
    """
    scored = {outputs.scores is not None for outputs in found}
    if len(scored) > 1:
        raise ForeignModelError("the network returns gate scores for some batches, and none for others")
    if scored == {False}:
        return None
    fitting = [layouts(outputs.scores, n_exits, size) for outputs, size in zip(found, sizes, strict=True)]
    left = set[Layout].intersection(*fitting)
    if len(left) != 1:
        raise ForeignModelError("the network's gate scores are laid out otherwise for batches of 3, 2 and 1 images")
    for outputs in found:  # whose sum is lost with a score in its place
        if exits := [str(k) for k, logits in enumerate(outputs.logits, start=1) if are_probabilities(logits[None]).any()]:
            raise ForeignModelError(f"the network returns probabilities at exit {', '.join(exits)}; it must return logits")
    return left.pop()


def _noise(size: int, input_shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(size, *input_shape, generator=torch.Generator().manual_seed(0))


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

"""Traces, in a network that cannot be cut, which operations the logits of each exit depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from exitbench.models.zero_weights import ZeroWeights

# Operations that keep row k of their input in row k of their output, beside those that torch tags as pointwise.
_BY_ROW = {torch.ops.aten._to_copy, torch.ops.aten.clone, torch.ops.aten.alias, torch.ops.aten.detach}
_ONE_ROW = {torch.ops.aten.select, torch.ops.aten.unbind}
_ALONG = {torch.ops.aten._softmax, torch.ops.aten._log_softmax}


@dataclass(frozen=True)
class TracedCosts:
    """The multiply-accumulates of one forward pass of one image.

    Attributes:
        reached: For every k, those that exits 1..k depend on, without those by a weight of zero.
        dense: The same, with zero weights included.
        convolutions: For every k, those of the convolutions that exit k depends on.
        total: Those of everything that ran.
        alone: For every k, those that exit k depends on, with zero weights included.
    """

    reached: tuple[int, ...]
    dense: tuple[int, ...]
    convolutions: tuple[int, ...]
    total: int
    alone: tuple[int, ...]


def trace(model: Callable[[Tensor], Tensor], x: Tensor, zeros: ZeroWeights | None = None) -> TracedCosts:
    """Trace one forward pass of ``x`` ``(1, C, H, W)`` to the logits ``(K, 1, classes)`` of the exits.

    Exits are told apart if the network computes them apart and joins them last, with ``torch.stack`` or ``torch.cat``.
    Otherwise each exit is taken to depend on everything that the joint tensor depends on. Products with a zero weight are
    counted apart if ``zeros`` is given.
    """
    with _whole_operations(), _Following(zeros) as following:
        logits = model(x)
    rows = following.rows(logits)
    so_far = list(accumulate(rows, or_))
    return TracedCosts(
        reached=tuple(following.macs_of(mask) - following.zero_macs_of(mask) for mask in so_far),
        dense=tuple(following.macs_of(mask) for mask in so_far),
        convolutions=tuple(following.macs_of(mask & following.convolutions) for mask in rows),
        total=sum(following.macs),
        alone=tuple(following.macs_of(mask) for mask in rows),
    )


@contextmanager
def _whole_operations() -> Iterator[None]:
    """Make the dispatcher show the products that layers consist of: without fused inference layers and without gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@dataclass
class _Rows:
    """The dependencies of single rows of one piece of memory, valid until it is written to.

    Attributes:
        owner: Id of the tensor whose rows these are.
        sets: The set of operations that each row depends on.
        views: The sets of views of single rows, by the id of the view.
    """

    owner: int
    sets: list[int]
    views: dict[int, int] = field(default_factory=dict)


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks for every piece of memory the set of costly operations that its content depends on; sets are bits of an integer.

    Views and in-place operations share memory, so that nothing is missed; memory that is written in part counts as written whole.
    """

    def __init__(self, zeros: ZeroWeights | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.zeros = zeros
        self.macs: list[int] = []
        self.zero_macs: list[int] = []
        self.convolutions = 0
        self._of_memory: dict[int, int] = {}
        self._of_rows: dict[int, _Rows] = {}
        self._alive: list[Tensor] = []  # so that no memory is used twice

    def macs_of(self, mask: int) -> int:
        """Return the multiply-accumulates of the operations in a set."""
        return sum(macs for i, macs in enumerate(self.macs) if mask >> i & 1)

    def zero_macs_of(self, mask: int) -> int:
        """Return the multiply-accumulates by zero weights of the operations in a set."""
        return sum(macs for i, macs in enumerate(self.zero_macs) if mask >> i & 1)

    def rows(self, tensor: Tensor) -> list[int]:
        """Return the set of each row along the first dimension."""
        known = self._of_rows.get(_memory(tensor))
        if known is not None and known.owner == id(tensor) and len(known.sets) == len(tensor):
            return known.sets
        return [self._set(tensor)] * len(tensor)

    def _set(self, tensor: Tensor) -> int:
        memory = _memory(tensor)
        whole = self._of_memory.get(memory, 0)
        return self._of_rows[memory].views.get(id(tensor), whole) if memory in self._of_rows else whole

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs = _tensors((args, kwargs))
        mask = reduce(or_, map(self._set, inputs), self._cost(func, args, kwargs, out))
        rows = self._rows_after(func, args, kwargs, inputs)
        if not func._schema.is_mutable:
            self._show_rows(func, args, kwargs, inputs, out)
        written = [*_tensors(out), *_written(func, args, kwargs)]
        self._alive += [*inputs, *written]
        for tensor in written:
            memory = _memory(tensor)
            self._of_memory[memory] = self._of_memory.get(memory, 0) | mask
            if func._schema.is_mutable:
                self._of_rows.pop(memory, None)
        if rows is not None and isinstance(out, Tensor):
            self._of_rows[_memory(out)] = _Rows(id(out), rows)
        return out

    def _show_rows(self, func: Any, args: Any, kwargs: Any, inputs: Sequence[Tensor], out: Any) -> None:
        """Record which rows are seen by the views that an operation returns."""
        known = self._of_rows.get(_memory(inputs[0])) if len(inputs) == 1 else None
        shown = [tensor for tensor in _tensors(out) if known is not None and _memory(tensor) == _memory(inputs[0])]
        if known is None or not shown:
            return
        packet = func._overloadpacket
        if id(inputs[0]) in known.views:
            sets = [known.views[id(inputs[0])]] * len(shown)
        elif known.owner == id(inputs[0]) and packet in _ONE_ROW and _dimension(args, kwargs) == 0:
            sets = known.sets if packet is torch.ops.aten.unbind else [known.sets[args[2]]]
        else:
            return
        known.views |= {id(tensor): one for tensor, one in zip(shown, sets, strict=True)}

    def _cost(self, func: Any, args: Any, kwargs: Any, out: Any) -> int:
        """Return the set of this operation alone; it is empty if nothing is multiplied."""
        count = flop_registry.get(func._overloadpacket)
        if count is None:
            return 0
        own = 1 << len(self.macs)
        self.macs.append(int(count(*args, **kwargs, out_val=out)) // 2)
        self.zero_macs.append(self.zeros.count(func._overloadpacket, args, out) if self.zeros else 0)
        if "convolution" in str(func):
            self.convolutions |= own
        return own

    def _rows_after(self, func: Any, args: Any, kwargs: Any, inputs: Sequence[Tensor]) -> list[int] | None:
        """Return the set of each row of an operation's result, or None if the operation mixes rows."""
        packet = func._overloadpacket
        along = _dimension(args, kwargs)
        if packet is torch.ops.aten.stack and along == 0:
            return [self._set(tensor) for tensor in args[0]]
        if packet is torch.ops.aten.cat and along == 0:
            return [row for tensor in args[0] for row in self.rows(tensor)]
        stacked = [tensor for tensor in inputs if _memory(tensor) in self._of_rows]
        if len(stacked) != 1 or any(tensor.ndim > stacked[0].ndim for tensor in inputs):
            return None
        if not (torch.Tag.pointwise in func.tags or packet in _BY_ROW or (packet in _ALONG and along % stacked[0].ndim)):
            return None
        others = reduce(or_, (self._set(tensor) for tensor in inputs if tensor is not stacked[0]), 0)
        return [row | others for row in self.rows(stacked[0])]


def _dimension(args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """Return the dimension that an operation takes as its second argument or as ``dim``; 0 if there is none."""
    along = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    return along if isinstance(along, int) else 0


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments that an operation changes in place."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    changed = {argument.name for argument in func._schema.arguments if argument.alias_info and argument.alias_info.is_write}
    return [tensor for name, value in given.items() if name in changed for tensor in _tensors(value)]

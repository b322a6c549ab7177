"""Traces, in a network that cannot be cut, which operations the logits of each exit depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from exitbench.models.counting import is_composite, shown_in_pieces
from exitbench.models.operator_mode import OperatorMode
from exitbench.models.operators import is_convolution, macs_of, operator_name
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
        uncounted: Names of the operators that ran and have no formula, in alphabetical order.
        convolutional: For every k, whether exit k is made by convolutions followed by few other products: no convolution that
            it depends on depends on another product, and convolutions are at least half of all that it depends on.
        alone: For every k, those that exit k depends on, with zero weights included.
    """

    reached: tuple[int, ...]
    dense: tuple[int, ...]
    convolutions: tuple[int, ...]
    total: int
    uncounted: tuple[str, ...]
    convolutional: tuple[bool, ...]
    alone: tuple[int, ...]


def trace(model: Callable[[Tensor], Tensor], x: Tensor, zeros: ZeroWeights | None = None) -> TracedCosts:
    """Trace one forward pass of ``x`` ``(1, C, H, W)`` to the logits ``(K, 1, classes)`` of the exits.

    Exits are told apart if the network computes them apart and joins them last, with ``torch.stack`` or ``torch.cat``.
    Otherwise each exit is taken to depend on everything that the joint tensor depends on. Products with a zero weight are
    counted apart if ``zeros`` is given.
    """
    with shown_in_pieces(), _Following(zeros) as following:
        logits = model(x)
    rows = following.rows(logits)
    so_far = list(accumulate(rows, or_))
    return TracedCosts(
        reached=tuple(following.macs_of(mask) - following.zero_macs_of(mask) for mask in so_far),
        dense=tuple(following.macs_of(mask) for mask in so_far),
        convolutions=tuple(following.macs_of(mask & following.convolutions) for mask in rows),
        total=sum(following.macs),
        uncounted=tuple(sorted(following.uncounted)),
        convolutional=tuple(following.is_convolutional(mask) for mask in rows),
        alone=tuple(following.macs_of(mask) for mask in rows),
    )


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


class _Following(OperatorMode):
    """Tracks for every piece of memory the set of costly operations that its content depends on; sets are bits of an integer.

    Views and in-place operations share memory, so that nothing is missed; memory that is written in part counts as written whole.
    """

    def __init__(self, zeros: ZeroWeights | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.zeros = zeros
        self.macs: list[int] = []
        self.zero_macs: list[int] = []
        self.convolutions = self.late_convolutions = 0
        self.uncounted: set[str] = set()
        self._of_memory: dict[int, int] = {}
        self._of_rows: dict[int, _Rows] = {}
        self._alive: list[Tensor] = []  # so that no memory is used twice

    def macs_of(self, mask: int) -> int:
        """Return the multiply-accumulates of the operations in a set."""
        return sum(macs for i, macs in enumerate(self.macs) if mask >> i & 1)

    def zero_macs_of(self, mask: int) -> int:
        """Return the multiply-accumulates by zero weights of the operations in a set."""
        return sum(macs for i, macs in enumerate(self.zero_macs) if mask >> i & 1)

    def is_convolutional(self, mask: int) -> bool:
        """Return whether a set is of convolutions and few products behind them."""
        return not mask & self.late_convolutions and 2 * self.macs_of(mask & self.convolutions) >= self.macs_of(mask) > 0

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
        if is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        inputs = _tensors((args, kwargs))
        before = reduce(or_, map(self._set, inputs), 0)
        mask = before | self._cost(func, args, kwargs, out, before)
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

    def _cost(self, func: Any, args: Any, kwargs: Any, out: Any, before: int) -> int:
        """Return the set of this operation alone; it is empty if nothing is multiplied."""
        macs = macs_of(func, args, kwargs, out)
        if macs is None:
            self.uncounted.add(operator_name(func))
        if not macs:
            return 0
        own = 1 << len(self.macs)
        self.macs.append(macs)
        self.zero_macs.append(self.zeros.count(func, args, out) if self.zeros else 0)
        if is_convolution(func):
            self.convolutions |= own
            self.late_convolutions |= own if before & ~self.convolutions else 0
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

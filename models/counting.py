"""Counts the multiply-accumulates of whatever runs, at torch's dispatcher, and names what it has no formula for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from exitbench.models.operator_mode import OperatorMode
from exitbench.models.operators import is_convolution, macs_of, operator_name
from exitbench.models.zero_weights import ZeroWeights


def is_composite(func: Any) -> bool:
    """Return whether an operator consists of others, which are counted in its place; inference mode shows it whole."""
    name = func.name()
    if not isinstance(func, torch._ops.OpOverload) or func._overloadpacket in flop_registry:
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))


@contextmanager
def shown_in_pieces() -> Iterator[None]:
    """Make the dispatcher show the products that layers consist of: without fused inference layers and without gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class Counting(OperatorMode):
    """A dispatch mode that counts multiply-accumulates.

    Attributes:
        macs: Those of all operators so far.
        convolutions: Those of convolutions among them.
        zero_macs: Those by zero weights among them; 0 if ``zeros`` is not given.
        uncounted: Names of operators that may cost something and have no formula.
    """

    supports_higher_order_operators = True

    def __init__(self, zeros: ZeroWeights | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.zeros = zeros
        self.macs = self.convolutions = self.zero_macs = 0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        macs = macs_of(func, args, kwargs, out)
        if macs is None:
            self.uncounted.add(operator_name(func))
        elif macs:
            self.macs += macs
            self.convolutions += macs if is_convolution(func) else 0
            self.zero_macs += self.zeros.count(func, args, out) if self.zeros else 0
        return out

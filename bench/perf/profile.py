"""Profiles a search: the time in the network's operations, in the attack's, and between operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.noise import Noise
from exitbench.models.operator_mode import OperatorMode
from exitbench.runner.prepare import Prepared
from exitbench.timing.timing import seconds

BUDGET = 20
"""Gradients per image of the profiled attack."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("convolution",),
    "other layers": ("batch_norm", "relu", "threshold", "pool", "linear", "mm"),
    "copies": ("copy", "clone", "cat", "stack", "index", "where", "contiguous"),
}
"""Parts of the profile, and substrings of the names of their operations; the first match counts."""

REST, BETWEEN = "arithmetic of losses, rule and steps", "between operations"


def profile(prepared: Prepared, x: Tensor, y: Tensor, noise: Noise) -> dict[str, float]:
    """Return the shares of the adaptive attack's time on the search model, by part; ``between operations`` is overhead."""
    target = prepared.target
    attack = Adaptive(prepared.settings.region, target.policy, BUDGET)
    with _Timed(x.device) as timed:
        attack(target.search_model, x, y, noise=noise)
    # Profiling lengthens the time between operations, so that the total is timed without it.
    total, _ = seconds(lambda: attack(target.search_model, x, y, noise=noise), x.device)
    total = max(total, sum(timed.spent.values()))
    shares = {part: took / total for part, took in sorted(timed.spent.items(), key=lambda item: -item[1])}
    return {**shares, BETWEEN: 1 - sum(shares.values())}


class _Timed(OperatorMode):
    """A dispatch mode that adds up the seconds of operations by part."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.spent: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call: Callable[[], Any] = lambda: func(*args, **(kwargs or {}))  # noqa: E731
        took, out = seconds(call, self.device)
        name = func.overloadpacket.__name__
        self.spent[next((part for part, names in PARTS.items() if any(each in name for each in names)), REST)] += took
        return out

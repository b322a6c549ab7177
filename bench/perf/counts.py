"""Counts what a step of an attack asks of the device and of the host: launches, and waits for results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.base import Attack
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.models.operator_mode import OperatorMode
from exitbench.models.policies import deployed_logits
from exitbench.runner.passes import counted as passes_of
from exitbench.runner.prepare import Prepared
from exitbench.timing.timing import forward_and_gradient, seconds

FEW, MANY = 10, 30
"""Gradients of the two runs whose difference is counted."""

SPEED_BUDGET = 20
"""Gradients per image of the search that is timed against its ceiling."""

VIEWS = frozenset(
    """alias as_strided detach expand permute select slice split split_with_sizes squeeze t transpose unbind unfold unsqueeze view
    _unsafe_view""".split()  # noqa: SIM905 - a list of as many strings is harder to read
)
"""Operations that only look at a tensor in another way, and launch nothing."""

ASKS = frozenset(("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "item"))
"""Operations whose result the host waits for."""

LAUNCHES = ("LaunchKernel", "GraphLaunch")
"""Parts of the names of CUDA's calls that start work, as a profiler shows them."""


@dataclass(frozen=True)
class Counts:
    """What a piece of work asked for.

    Attributes:
        launches: On a GPU, kernels and graphs that were launched; on a CPU, operations that compute something.
        waits: Times that the host waited for a result, or, on a CPU, would have waited for a GPU's.
    """

    launches: float
    waits: float


def counts(work: Callable[[], Any], device: torch.device) -> Counts:
    """Count the launches and waits of ``work``."""
    if device.type == "cuda":
        return _profiled(work)
    with _Dispatched() as mode:
        work()
    return Counts(mode.launches, mode.waits)


def per_gradient(prepared: Prepared, x: Tensor, y: Tensor, noise: Noise) -> dict[str, dict[str, float]]:
    """Return launches and waits for each further gradient of two attacks, and for a forward and gradient by themselves.

    The radius is so small that no sample breaks: nothing leaves the batch.
    """
    net, policy, device = prepared.target.searched, prepared.target.policy, x.device
    tight = ThreatModel(prepared.settings.region.norm, 1e-7)
    with torch.no_grad():
        kept = deployed_logits(net(x), policy)[0].argmax(-1)
    attacks: dict[str, Callable[[int], Attack]] = {
        "average": lambda steps: PGD(Objective(CE(), Mean()), tight, steps, tight.eps / 4),
        "adaptive": lambda steps: Adaptive(tight, policy, steps),
    }
    found = {"forward and gradient": vars(_settled(lambda: forward_and_gradient(net, x), device))}
    more = MANY - FEW
    for name, attack in attacks.items():
        few, many = (_settled(partial(attack(steps), net, x, kept, noise=noise), device) for steps in (FEW, MANY))
        found[name] = vars(Counts((many.launches - few.launches) / more, (many.waits - few.waits) / more))
    return found


def search_speed(prepared: Prepared, x: Tensor, y: Tensor, noise: Noise) -> dict[str, float]:
    """Time the adaptive attack against its ceiling: passes of the search model alone, as many images at once.

    Returns:
        ``gradients``: Gradients per second of the attack. ``ceiling``: Those of the network alone. ``share``: Their ratio.
    """
    net, device = prepared.target.searched, x.device
    attack = Adaptive(prepared.settings.region, prepared.target.policy, SPEED_BUDGET)
    attack(net, x, y, noise=noise)
    alone = min(seconds(lambda: forward_and_gradient(net, x), device)[0] for _ in range(4))
    with passes_of(net) as passes:
        took, _ = seconds(lambda: attack(net, x, y, noise=noise), device)
    rate, ceiling = passes.backwards / took, len(x) / alone
    return {"gradients": rate, "ceiling": ceiling, "share": rate / ceiling}


def _settled(work: Callable[[], Any], device: torch.device) -> Counts:
    """Count the second run: in the first, constants are made and libraries set up."""
    work()
    return counts(work, device)


def _profiled(work: Callable[[], Any]) -> Counts:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profiled:
        work()
    calls = {event.key: event.count for event in profiled.key_averages()}
    launches = sum(n for name, n in calls.items() if any(part in name for part in LAUNCHES))
    # The profiler waits for the device at its own end.
    waits = sum(n for name, n in calls.items() if "StreamSynchronize" in name or "EventSynchronize" in name)
    return Counts(launches, waits)


class _Dispatched(OperatorMode):
    """A dispatch mode that counts operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.launches += name not in VIEWS
        by_mask = name.startswith("index") and any(_masks(value) for value in args[1:2])
        self.waits += name in ASKS or by_mask
        return func(*args, **(kwargs or {}))


def _masks(indices: Any) -> bool:
    found = indices if isinstance(indices, (list, tuple)) else [indices]
    return any(isinstance(each, Tensor) and each.dtype == torch.bool for each in found)

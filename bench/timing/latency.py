"""Measures the latency of each exit on the network as deployed: what follows an exit is not computed.

Multiply-accumulates are not time; latency is what they are checked against.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.field_types import Costs, Count, Key, Line, Measured, Name, Rule, SafeName
from exitbench.models.policies import Policy
from exitbench.models.policy_text import policy_text
from exitbench.models.spec import digest
from exitbench.models.stored import Format, Stored, Unreadable
from exitbench.models.views import ExitView
from exitbench.store.identity import Deployed
from exitbench.store.inside import read_inside, write_inside
from exitbench.store.run_record import RunRecord
from exitbench.target.target import Target
from exitbench.timing.ptflops_check import ptflops_mmacs

BATCH = 128
"""Size of the large batch: the first clean test images, repeated if there are fewer."""

_log = logging.getLogger(__name__)

Quartiles = tuple[Measured, Measured, Measured]
"""Milliseconds: 25 %, median, 75 %."""


class Latency(Stored, frozen=True, kw_only=True):
    """The latency of one network on one machine.

    Attributes:
        model, training, weights, dataset, policy: The network as deployed.
        machine, device, threads, torch: The processor, the type of device (no host names), and the version of torch.
        measured: Time of the measurement, UTC.
        rounds: Number of rounds in which everything was timed in turn.
        stops: Whether what follows an exit is skipped; a network that neither is cut into stages nor yields its exits
            one by one runs whole.
        mmacs: Cost of each exit as counted by exitbench.
        ptflops: Mmacs of a forward pass up to each exit as counted by ptflops; None where it gave no figure.
        one: For each exit, quartiles ``(25 %, median, 75 %)`` of the milliseconds that a single image takes to leave there,
            gates and heads on the way included.
        many: For each exit, the same per image of a batch of ``BATCH`` that all leave there.
        deployed_one, deployed_many: The same under the policy, for a single image and for an image of a batch whose later
            stages run on the images that are left.
    """

    model: Name
    training: Name
    weights: Key
    dataset: SafeName
    policy: Rule
    machine: Line
    device: Line
    threads: Count
    torch: Line
    measured: Line
    rounds: Count
    stops: bool
    mmacs: Costs
    ptflops: tuple[Measured | None, ...]
    one: tuple[Quartiles, ...]
    many: tuple[Quartiles, ...]
    deployed_one: Quartiles
    deployed_many: Quartiles

    def __post_init__(self) -> None:
        if not len(self.mmacs) == len(self.ptflops) == len(self.one) == len(self.many):
            raise ValueError("`mmacs`, `ptflops`, `one` and `many` are of different numbers of exits")

    @property
    def deployed(self) -> Deployed:
        """The network under its rule that was timed."""
        return Deployed(self.model, self.weights, self.dataset, self.policy)

    @property
    def key(self) -> str:
        """Key in the store; a newer measurement of the same network and machine replaces an older one."""
        same = {name: getattr(self, name) for name in ("model", "weights", "dataset", "policy", "machine", "device", "threads")}
        return digest(same)

    @property
    def where(self) -> str:
        """Processor and number of threads, as text."""
        threads = "" if self.device == "cuda" else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return self.machine + threads


LATENCY = Format("a measured latency", Latency)


def measure_latency(
    target: Target, dataset: str, images: Tensor, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> Latency:
    """Time the plain fp32 network, with all parts in turn, so that a busy moment of the machine affects all alike.

    Args:
        target: The target, on its device.
        dataset: Name of the dataset of the images.
        images: Clean images ``(N, C, H, W)``.
        rounds: Number of rounds; one more comes first, as a warm-up.
        clock: Returns the time in seconds.
    """
    model, policy, n_exits = target.model, target.policy, target.model.n_exits
    device = next(model.parameters()).device
    images = images.to(device)
    many = images[torch.arange(BATCH, device=device) % len(images)]
    one = [images[i % len(images)][None] for i in range(rounds + 1)]
    work: list[Callable[[int], object]] = []
    for k in range(n_exits):
        work.append(lambda i, k=k: run_to(model, one[i], k, policy))  # type: ignore[misc]
        work.append(lambda _, k=k: run_to(model, many, k, policy))  # type: ignore[misc]
    work += [lambda i: model.deployed(one[i], policy), lambda _: model.deployed(many, policy)]
    taken = np.zeros((rounds + 1, len(work)))
    with torch.inference_mode():
        for i in range(rounds + 1):
            for j, run in enumerate(work):
                _wait(device)
                began = clock()
                run(i)
                _wait(device)
                taken[i, j] = clock() - began
    ms = 1e3 * taken[1:]
    quartiles = [_quartiles(ms[:, j] / (BATCH if j % 2 else 1)) for j in range(len(work))]
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    return Latency(
        model=target.name,
        training=target.training,
        weights=target.weights,
        dataset=dataset,
        policy=policy_text(policy),
        machine=processor(device),
        device=device.type,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        measured=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        rounds=rounds,
        stops=n_exits == 1 or (model.stops and target.costs.mmacs[0] < target.costs.mmacs[-1]),
        mmacs=tuple(target.costs.mmacs),
        ptflops=tuple(_second_opinion(model, k, shape) for k in range(n_exits)),
        one=tuple(quartiles[0 : 2 * n_exits : 2]),
        many=tuple(quartiles[1 : 2 * n_exits : 2]),
        deployed_one=quartiles[-2],
        deployed_many=quartiles[-1],
    )


def run_to(model: EarlyExitNet, x: Tensor, k: int, policy: Policy) -> Tensor:
    """Return the logits ``(B, classes)`` of exit ``k`` (0-based); stages, heads and gates up to it are computed.

    Raises:
        ValueError: If the network has no exit ``k``.
    """
    seen: list[Tensor] = []
    for j, logits in enumerate(model.exits(x)):
        if j == k:
            return logits
        seen.append(logits)
        policy.leaves(torch.stack(seen))
    raise ValueError(f"exit index {k} is outside 0..{model.n_exits - 1}")


def write_latency(latency: Latency, store: Path) -> None:
    """Keep a measurement in the store with this root, in place of what was measured there before."""
    write_inside(store, store / "latency" / f"{latency.key}.json", LATENCY.text(latency))


def latencies(store: Path) -> list[Latency]:
    """Return all measurements in the store with this root, oldest first; files that cannot be read are logged and left out."""
    found = []
    for path in sorted((store / "latency").glob("*.json")):
        try:
            found.append(LATENCY.read_text(read_inside(store, path), path))
        except FileNotFoundError:
            continue
        except (OSError, Unreadable) as error:
            _log.error("%s; this measurement is left out", error)
    return sorted(found, key=lambda latency: (latency.measured, latency.key))


def latency_of(record: RunRecord, measured: Sequence[Latency]) -> Latency | None:
    """Return the newest measurement of the network and policy of a run record, or None."""
    same = [each for each in measured if each.deployed == record.deployed and len(each.one) == record.n_exits]
    return same[-1] if same else None


def processor(device: torch.device) -> str:
    """Return the name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quartiles(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(median), float(high)


def _second_opinion(model: EarlyExitNet, k: int, shape: tuple[int, int, int]) -> float | None:
    try:
        return ptflops_mmacs(ExitView(model, k + 1), shape)
    except UserError:
        return None

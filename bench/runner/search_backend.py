"""Chooses the search model: each configuration is timed once on this machine, and the fastest for the work is used."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.graphed import FIRST, graphed
from exitbench.models.search_model import (
    DIFFERENCE,
    FOLDED,
    PLAIN,
    SearchConfig,
    build_search_model,
    relative_difference,
    search_configs,
)
from exitbench.runner.prepare import Precision, Prepared
from exitbench.timing.cache import Timing, cache_file, key_of, read_cache, write_cache
from exitbench.timing.timing import forward_and_gradient, in_turn, seconds

_log = logging.getLogger(__name__)

BATCH = {"cpu": 32, "cuda": 512}
"""Batch size for timing, about that of attacks."""

COMPILE_FROM_S = 900.0
"""Expected seconds of work from which compiled configurations are timed: compiling takes minutes on a CPU."""

WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""Instruction sets that emulate bf16, many times slower."""


@dataclass(frozen=True)
class SearchBackend:
    """The choice of a search model.

    Attributes:
        config: The configuration of the search model.
        timings: Timing of every configuration that was measured, by its text; empty if there was no choice.
        remembered: Whether the timings come from the cache.
    """

    config: SearchConfig = FOLDED
    timings: Mapping[str, Timing] = field(default_factory=dict)
    remembered: bool = False

    def text(self) -> str:
        """Return the configuration and its speed, in one line."""
        quickest = sorted(self.timings.items(), key=lambda named: -named[1].rate)
        rates = ", ".join(f"{name} {timing.rate:.0f}" for name, timing in quickest if timing.rate)
        when = "measured before" if self.remembered else "measured now"
        return f"attacks search on: {self.config}" + (f" (images/s with gradient, {when}: {rates})" if rates else "")


def with_search_model(prepared: Prepared, work: float) -> tuple[Prepared, SearchBackend]:
    """Return ``prepared`` with the search model for ``work`` expected gradients.

    Raises:
        UserError: If the network has no search model in the requested precision.
    """
    model = prepared.target.model
    backend = choose(model, prepared.split.shape, prepared.precision, work)
    return replace(prepared, target=replace(prepared.target, search_config=backend.config)), backend


def choose(model: EarlyExitNet, shape: tuple[int, int, int], wanted: Precision, work: float) -> SearchBackend:
    """Choose the search model for ``model`` on images of ``shape`` ``(C, H, W)``.

    ``fp32`` is the plain model itself; ``bf16`` is the folded one in bf16, without timing; ``auto`` is the configuration
    expected to finish first.

    Raises:
        UserError: If ``bf16`` is requested for a network that is not cut into stages.
    """
    configs = search_configs(model)
    if wanted == "fp32" or configs == [PLAIN]:
        if wanted == "bf16":
            raise UserError("--precision bf16: this network is run whole and has no search model; use auto or fp32")
        return SearchBackend(PLAIN)
    device = next(model.parameters()).device
    if wanted == "bf16":
        if (half := SearchConfig(precision="bf16")) not in configs:
            raise UserError("--precision bf16: this network runs its stages in a way of its own; use auto or fp32")
        return SearchBackend(half)
    path, key = cache_file(), key_of(model, shape, device)
    known = read_cache(path).get(key, {})
    quick = [config for config in configs if not config.compiled and (config.precision == "fp32" or _has_bf16(device))]
    timings = {**known, **_measured(model, shape, [config for config in quick if str(config) not in known])}
    best = max(timing.rate for name, timing in timings.items() if name in map(str, quick))
    if best and work / best > COMPILE_FROM_S:
        compiled = [replace(config, compiled=True) for config in quick if config.folded]
        if any(str(config) not in timings for config in compiled):
            # All of them again in turn: the load on the machine may have changed since the others were timed.
            timings |= _measured(model, shape, [*quick, *compiled])
    if timings != known:
        write_cache(path, key, timings)
    config = min(configs, key=lambda config: _seconds(timings.get(str(config)), work))
    return SearchBackend(config, timings, remembered=timings == known)


def _seconds(timing: Timing | None, work: float) -> float:
    """Return the seconds until ``work`` gradients are done."""
    if timing is None or not timing.rate:
        return float("inf")
    return max(work, 1) / timing.rate + timing.setup


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return torch.backends.cpu.get_cpu_capability() not in WITHOUT_BF16


def _measured(model: EarlyExitNet, shape: tuple[int, int, int], configs: list[SearchConfig]) -> dict[str, Timing]:
    """Time configurations in turn, so that other load on the machine affects all alike."""
    device = next(model.parameters()).device
    x = torch.rand(BATCH.get(device.type, 32), *shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        plain = model(x)
    steps: dict[SearchConfig, Callable[[], float]] = {}
    timings = {}
    for config in configs:
        try:
            setup, built = seconds(lambda config=config: build_search_model(model, config), device)  # type: ignore[misc]
            search_model = graphed(built)  # as attacks get it
            setup += seconds(lambda search_model=search_model: forward_and_gradient(search_model, x), device)[0]  # type: ignore[misc]
            with torch.no_grad():
                difference = relative_difference(built(x), plain)
        except Exception as error:  # noqa: BLE001 - compilers and kernels may raise anything; the configuration is left out
            _log.info("no search model in the form %s: %s", config, first_line(error))
            timings[str(config)] = Timing(0.0, 0.0)
            continue
        if difference > DIFFERENCE[config.precision]:
            _log.info("the search model in the form %s differs by %.2g", config, difference)
            timings[str(config)] = Timing(0.0, 0.0)
            continue
        for _ in range(FIRST - 1 if search_model is not built else 0):  # passes are recorded when a size is used again
            forward_and_gradient(search_model, x)
        steps[config] = lambda search_model=search_model: seconds(lambda: forward_and_gradient(search_model, x), device)[0]  # type: ignore[misc]
        timings[str(config)] = Timing(0.0, setup if config.compiled else 0.0)
    for config, took in in_turn(steps).items():
        timings[str(config)] = replace(timings[str(config)], rate=round(len(x) / statistics.median(took), 1))
    return timings

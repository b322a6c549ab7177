"""Which twin attacks search on: every candidate is timed on this machine once, and the quickest to finish the work is taken."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from exitbench.errors import UserError
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.twins import DIFFERENCE, FOLDED, PLAIN, Form, build_twin, forms_of, relative_difference
from exitbench.runner.prepare import Precision, Prepared
from exitbench.timing.cache import Timing, cache_file, key_of, read_cache, write_cache
from exitbench.timing.timing import forward_and_gradient, in_turn, seconds

_log = logging.getLogger(__name__)

BATCH = {"cpu": 32, "cuda": 512}
"""Images that a candidate is timed on: about what attacks hand it at once."""

COMPILE_FROM_S = 900.0
"""Expected seconds of work from which compiled candidates are tried: compiling takes minutes on a CPU."""

WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""Instruction sets that only imitate bf16, many times slower."""


@dataclass(frozen=True)
class Engine:
    """What attacks search on.

    Attributes:
        form: how the twin is built.
        timings: of every candidate that was measured, by its text; empty where there was no choice.
        remembered: whether the timings come from the cache.
    """

    form: Form = FOLDED
    timings: Mapping[str, Timing] = field(default_factory=dict)
    remembered: bool = False

    def text(self) -> str:
        """What is searched on and how fast it is, in a line."""
        quickest = sorted(self.timings.items(), key=lambda named: -named[1].rate)
        rates = ", ".join(f"{name} {timing.rate:.0f}" for name, timing in quickest if timing.rate)
        when = "measured before" if self.remembered else "measured now"
        return f"attacks search on: {self.form}" + (f" (images/s with gradient, {when}: {rates})" if rates else "")


def equipped(prepared: Prepared, work: float) -> tuple[Prepared, Engine]:
    """``prepared`` with the twin to search on for ``work`` expected gradients.

    Raises:
        UserError: a precision that the network has no twin in.
    """
    model = prepared.victim.model
    engine = choose(model, prepared.split.shape, prepared.precision, work)
    return replace(prepared, victim=replace(prepared.victim, form=engine.form)), engine


def choose(model: EarlyExitNet, shape: tuple[int, int, int], wanted: Precision, work: float) -> Engine:
    """The engine for ``model`` on images of ``shape`` ``(C, H, W)``.

    ``fp32`` is the plain model itself; ``bf16`` the folded one in bf16, measured or not; ``auto`` the candidate that is
    expected to finish first.

    Raises:
        UserError: ``bf16`` of a network that is not cut into stages.
    """
    forms = forms_of(model)
    if wanted == "fp32" or forms == [PLAIN]:
        if wanted == "bf16":
            raise UserError("--precision bf16: this network is run whole and has no twin; use auto or fp32")
        return Engine(PLAIN)
    device = next(model.parameters()).device
    if wanted == "bf16":
        if (half := Form(precision="bf16")) not in forms:
            raise UserError("--precision bf16: this network runs its stages in a way of its own; use auto or fp32")
        return Engine(half)
    path, key = cache_file(), key_of(model, shape, device)
    known = read_cache(path).get(key, {})
    quick = [form for form in forms if not form.compiled and (form.precision == "fp32" or _has_bf16(device))]
    timings = {**known, **_measured(model, shape, [form for form in quick if str(form) not in known])}
    best = max(timing.rate for name, timing in timings.items() if name in map(str, quick))
    if best and work / best > COMPILE_FROM_S:
        compiled = [replace(form, compiled=True) for form in quick if form.folded]
        if any(str(form) not in timings for form in compiled):
            # All of them in turn: the machine may be busier than when the others were timed.
            timings |= _measured(model, shape, [*quick, *compiled])
    if timings != known:
        write_cache(path, key, timings)
    form = min(forms, key=lambda form: _seconds(timings.get(str(form)), work))
    return Engine(form, timings, remembered=timings == known)


def _seconds(timing: Timing | None, work: float) -> float:
    """Until ``work`` gradients are done."""
    if timing is None or not timing.rate:
        return float("inf")
    return max(work, 1) / timing.rate + timing.setup


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return torch.backends.cpu.get_cpu_capability() not in WITHOUT_BF16


def _measured(model: EarlyExitNet, shape: tuple[int, int, int], forms: list[Form]) -> dict[str, Timing]:
    """Time candidates turn by turn, so that what else the machine does falls on all of them alike."""
    device = next(model.parameters()).device
    x = torch.rand(BATCH.get(device.type, 32), *shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        plain = model(x)
    steps: dict[Form, Callable[[], float]] = {}
    timings = {}
    for form in forms:
        try:
            setup, twin = seconds(lambda form=form: build_twin(model, form), device)  # type: ignore[misc]
            setup += seconds(lambda twin=twin: forward_and_gradient(twin, x), device)[0]  # type: ignore[misc]
            with torch.no_grad():
                difference = relative_difference(twin(x), plain)
        except Exception as error:  # noqa: BLE001 - compilers and kernels fail in ways of their own: one candidate less
            _log.info("no twin in the form %s: %s", form, first_line(error))
            timings[str(form)] = Timing(0.0, 0.0)
            continue
        if difference > DIFFERENCE[form.precision]:
            _log.info("the twin in the form %s differs by %.2g", form, difference)
            timings[str(form)] = Timing(0.0, 0.0)
            continue
        steps[form] = lambda twin=twin: seconds(lambda: forward_and_gradient(twin, x), device)[0]  # type: ignore[misc]
        timings[str(form)] = Timing(0.0, setup if form.compiled else 0.0)
    for form, took in in_turn(steps).items():
        timings[str(form)] = replace(timings[str(form)], rate=round(len(x) / statistics.median(took), 1))
    return timings

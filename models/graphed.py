"""Networks whose passes are recorded on a GPU and replayed: one launch in place of hundreds.

A search calls its network thousands of times on batches of few sizes, and small kernels cost a GPU more to launch than to run.
Attacks search on such a network; what is judged is computed without.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from exitbench.models.cuda_passes import CudaRecorder
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.policies import Policy, deployed_logits

SIZES = (32, 128, 256, 512, 1024, 2048, 4096)
"""Batch sizes of recordings; larger batches fill a GPU without."""

LARGEST = 3 * 64 * 64
"""Numbers in the largest images that are recorded; a few larger ones keep a GPU busy, and padding costs more than launches."""

FIRST, BETTER = 2, 8
"""Use of a size at which it is recorded: if no recorded size is large enough, and if one is but a smaller one would do."""

_PACKAGES = ("exitbench", "torch", "timm")
"""Packages whose layers do the same at every call."""

Made = TypeVar("Made")

_log = logging.getLogger(__name__)


class StaticPasses(Protocol):
    """A forward and a backward pass through the first exits of a network, on tensors that stay where they are.

    Attributes:
        x: Images ``(S, C, H, W)``, read by ``forward``.
        logits: Logits ``(K', S, classes)``, written by ``forward``.
        gradient: Gradient of the logits, read by ``backward``.
        of_images: Gradient of the images, written by ``backward``, at what ``forward`` read last.
    """

    x: Tensor
    logits: Tensor
    gradient: Tensor
    of_images: Tensor

    def forward(self) -> None: ...

    def backward(self) -> None: ...


class Recorder(Protocol):
    """Records what is launched on a device."""

    def passes(self, net: EarlyExitNet, x: Tensor, last: int) -> StaticPasses:
        """Record the passes of a network on images ``(S, C, H, W)``, through the exits up to ``last``, 0-based."""

    def beside(self, work: Callable[[], None], device: torch.device) -> None:
        """Run work where recordings run, before one is made of it."""

    def record(self, work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        """Record work on tensors that stay where they are, and return a function that replays it."""


def graphed(model: EarlyExitNet, recorder: Recorder | None = None) -> EarlyExitNet:
    """Return ``model`` with recorded passes, or ``model`` itself where there is nothing to gain or something to lose.

    It is itself on a CPU, and if some layer is not of a package that is known to do the same at every call.

    Args:
        model: The network.
        recorder: Records its passes; None for CUDA graphs.
    """
    first = next(model.parameters(), None)
    if first is None or (recorder is None and first.device.type != "cuda"):
        return model
    if any(type(layer).__module__.partition(".")[0] not in _PACKAGES for layer in model.modules()):
        return model
    return GraphedNet(model, recorder or CudaRecorder())


class GraphedNet(EarlyExitNet):
    """A network in evaluation mode whose passes are recorded for a few batch sizes and replayed; others run as they are.

    Batches are padded to a recorded size. Rows of a network in evaluation mode do not interact, so that no row changes by it. A
    network that cannot be recorded runs as it is, which is logged once.

    Args:
        net: The network, which is not changed.
        recorder: Records its passes.

    Attributes:
        recorder: See above.
        steps: What searches have recorded on it, by what they are known by; dropped with the recordings of passes.
    """

    def __init__(self, net: EarlyExitNet, recorder: Recorder) -> None:
        super().__init__()
        self.exit_costs, self.has_gate_scores, self.grid = net.exit_costs, net.has_gate_scores, net.grid
        self.net, self.recorder, self._refused = net, recorder, False
        self.steps: dict[Hashable, Any] = {}
        self._entry = _Entry()
        self._recorded: dict[Hashable, dict[int, StaticPasses]] = {}
        self._uses: Counter[Hashable] = Counter()
        self._weights = _places(net)
        self.training = net.training

    @property
    def n_exits(self) -> int:
        return self.net.n_exits

    @property
    def entry(self) -> nn.Module:
        return self._entry

    def current(self) -> EarlyExitNet:
        """Return this network, whose recordings are dropped if weights have been replaced or changed since."""
        if self._weights != (now := _places(self.net)):
            self._drop()
            self._weights = now
        return self

    def records(self, x: Tensor) -> bool:
        """Return whether recordings are made of it for images such as ``x`` ``(B, C, H, W)``."""
        return not (self._refused or self.training) and x[:1].numel() <= LARGEST

    def passed(self, images: int) -> None:
        """Count forward and backward passes, in images, which replays of more than passes have made."""
        with torch.enable_grad():
            some = torch.empty(1, device=next(self.net.parameters()).device).expand(images).requires_grad_()
            torch.autograd.grad(self._entry(some).sum(), some)

    def tried(self, make: Callable[[], Made]) -> Made | None:
        """Return what ``make`` records; None if that fails, after which nothing is recorded of this network."""
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - a recording may fail in many ways; without one, the network runs as it is
            self._refused = True
            self._drop()
            _log.warning("the network's passes cannot be recorded, they are launched one by one: %s", first_line(error))
            return None

    def _drop(self) -> None:
        for kept in (self._recorded, self._uses, self.steps):
            kept.clear()

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        yield from self(x)

    def leaving_graph(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        logits: Tensor = self(x)
        return logits

    def deployed(self, x: Tensor, policy: Policy) -> Tensor:
        return deployed_logits(self(x), policy)[0]

    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        return self.net.preceded_by(first)

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        x = self._entry(x)
        passes = self._passes(x, self.n_exits - 1 if upto is None else upto)
        if passes is None:
            logits: Tensor = self.net(x, upto)
            return logits
        if torch.is_grad_enabled() and x.requires_grad:
            replayed: Tensor = _Replayed.apply(x, passes)
            return replayed
        return _run(passes, x)

    def _passes(self, x: Tensor, last: int) -> StaticPasses | None:
        """Return recorded passes for a batch as large as ``x`` at least; None if it is to run as it is."""
        if not self.records(x) or not 0 < len(x) <= SIZES[-1] or not 0 <= last < self.n_exits:
            return None
        kind = (last, x.shape[1:], x.dtype, x.device)
        recorded = self._recorded.setdefault(kind, {})
        size = next(size for size in SIZES if size >= len(x))
        if size in recorded:
            return recorded[size]
        larger = min((other for other in recorded if other > size), default=None)
        self._uses[kind, size] += 1
        if self._uses[kind, size] >= (FIRST if larger is None else BETTER):
            made = self.tried(lambda: self.recorder.passes(self.net, padded(x.detach(), size), last))
            if made is None:
                return None
            recorded[size] = made
        return recorded.get(size, None if larger is None else recorded[larger])


def padded(x: Tensor, size: int) -> Tensor:
    """Return images ``(size, C, H, W)``: those of ``x``, then copies of the first."""
    return torch.cat([x, x[:1].expand(size - len(x), *x.shape[1:])])


class _Turns:
    """Counts replays: recordings share their memory, so that each overwrites what the one before has left."""

    now = 0


def replays_begin() -> None:
    """Say that replays begin that are not passes of a ``GraphedNet``: what its last forward pass has left is overwritten."""
    _Turns.now += 1


def _run(passes: StaticPasses, x: Tensor) -> Tensor:
    """Return the logits ``(K', B, classes)`` of images, by a replay."""
    _Turns.now += 1
    with torch.no_grad():
        passes.x[: len(x)].copy_(x)
        passes.forward()
        return passes.logits[:, : len(x)].clone()


class _Replayed(torch.autograd.Function):
    """Logits by a replay, and the gradient of the images by another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passes: StaticPasses) -> Tensor:
        ctx.save_for_backward(x)
        ctx.passes = passes
        logits = _run(passes, x)
        ctx.turn = _Turns.now
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,), passes = ctx.saved_tensors, ctx.passes
        if ctx.turn != _Turns.now:
            _run(passes, x)
            ctx.turn = _Turns.now
        passes.gradient[:, : len(x)].copy_(gradient)
        passes.backward()
        return passes.of_images[: len(x)].clone(), None


class _Entry(nn.Module):
    """The place where passes are counted, in images of the batch as it was before padding."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view_as(x)


def _places(net: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return where the weights of a network are, and how often they were changed in place."""
    return tuple((each.data_ptr(), each._version) for each in (*net.parameters(), *net.buffers()))

"""Chooses device, precision and compilation for training, by what is fastest on this machine."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from exitbench.errors import UserError
from exitbench.models.compiled import compile_pieces
from exitbench.models.multi_exit import MultiExitNet

Precision = Literal["fp32", "bf16"]
WORTHWHILE = 1.15
"""Smallest speed-up for which bf16 is used on a CPU: below it, the coarser rounding is not worthwhile."""

WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""Instruction sets that emulate bf16, so slowly that timing it would take minutes."""


@dataclass(frozen=True)
class Machine:
    """A device and how it is used.

    Attributes:
        device: The device to train on.
        precision: Precision of activations; weights and updates are always fp32.
        compiled: Whether stages and heads are compiled with ``torch.compile``.
        graphs: Whether updates are replayed as CUDA graphs; it never happens on a CPU.
    """

    device: torch.device
    precision: Precision = "fp32"
    compiled: bool = False
    graphs: bool = True

    def autocast(self) -> AbstractContextManager[None]:
        """Return the autocast context for forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def prepare(self, model: MultiExitNet) -> MultiExitNet:
        """Move ``model`` to the device and compile it piece by piece if asked, in place; names of weights do not change."""
        model = model.to(self.device).to(memory_format=torch.channels_last)
        if self.compiled:
            compile_pieces([*model.stages, *model.heads])
        return model


def pick_machine(
    model: MultiExitNet,
    input_shape: tuple[int, int, int],
    device: str = "auto",
    precision: str = "auto",
    compiled: bool | None = None,
    graphs: bool = True,
) -> Machine:
    """Choose the machine: by default a GPU in bf16, or a CPU in bf16 only if a training step gains by it.

    Args:
        model: The network to train; on a CPU, a step of it is timed if ``precision`` is ``auto``.
        input_shape: Shape ``(C, H, W)`` of an image.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        compiled: Whether to compile; by default not: a GPU that replays its updates gains little, and waits for minutes first.
        graphs: Whether a GPU may replay updates as CUDA graphs.

    Raises:
        UserError: If ``device`` is ``cuda`` and there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda" if on_gpu else "cpu")
    compiled = bool(compiled)
    if precision != "auto":
        return Machine(place, "bf16" if precision == "bf16" else "fp32", compiled, graphs)
    if on_gpu:
        return Machine(place, "bf16", compiled, graphs)
    plain, half = Machine(place, "fp32", compiled), Machine(place, "bf16", compiled)
    if torch.backends.cpu.get_cpu_capability() in WITHOUT_BF16:
        return plain
    return half if _seconds(model, input_shape, plain) > WORTHWHILE * _seconds(model, input_shape, half) else plain


def _seconds(model: MultiExitNet, input_shape: tuple[int, int, int], machine: Machine) -> float:
    """Time a forward and backward pass of a batch, in seconds: the faster of two after a warm-up; the model is not changed."""
    x = torch.rand(32, *input_shape).contiguous(memory_format=torch.channels_last)
    model.eval()

    def step() -> float:
        began = time.perf_counter()
        inputs: Tensor = x.clone().requires_grad_()
        with machine.autocast():
            loss = model(inputs).float().logsumexp(-1).sum()
        torch.autograd.grad(loss, [inputs, *model.parameters()])
        return time.perf_counter() - began

    step()
    return min(step(), step())

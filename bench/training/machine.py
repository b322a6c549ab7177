"""What to train on, and in which precision: whatever this machine gains by."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from exitbench.errors import UserError
from exitbench.models.compiled import compile_pieces
from exitbench.models.multi_exit import MultiExitNet

Precision = Literal["fp32", "bf16"]
WORTHWHILE = 1.15
"""Speed-up from which bf16 is taken on a CPU: below it, its rounding buys nothing."""

WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""Instruction sets that only imitate bf16, so slowly that timing it would take minutes."""


@dataclass(frozen=True)
class Machine:
    """A device and how it is used.

    Attributes:
        device: where to train.
        precision: of activations; weights and updates are fp32 either way.
        compiled: whether stages and heads go through ``torch.compile``.
    """

    device: torch.device
    precision: Precision = "fp32"
    compiled: bool = False

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which training's forwards run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def prepare(self, model: MultiExitNet) -> MultiExitNet:
        """``model`` on the device, in place, compiled piece by piece where asked; names of its weights stay as they are."""
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
) -> Machine:
    """A GPU if there is one, in bf16 and compiled; else the CPU, in bf16 only where a training step is faster for it.

    Args:
        model: what will be trained; one step of it is timed on a CPU when ``precision`` is ``auto``.
        input_shape: ``(C, H, W)``.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        compiled: whether to compile; None for on a GPU alone.

    Raises:
        UserError: a GPU is asked for where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda" if on_gpu else "cpu")
    compiled = on_gpu if compiled is None else compiled
    if precision != "auto":
        return Machine(place, "bf16" if precision == "bf16" else "fp32", compiled)
    if on_gpu:
        return Machine(place, "bf16", compiled)
    plain, half = Machine(place, "fp32", compiled), Machine(place, "bf16", compiled)
    if torch.backends.cpu.get_cpu_capability() in WITHOUT_BF16:
        return plain
    return half if _seconds(model, input_shape, plain) > WORTHWHILE * _seconds(model, input_shape, half) else plain


def _seconds(model: MultiExitNet, input_shape: tuple[int, int, int], machine: Machine) -> float:
    """Of a forward and backward of a batch, the quicker of two after one to warm up; the model is left as it was."""
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

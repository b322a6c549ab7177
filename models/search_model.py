"""Builds the search model: a copy of a network that computes the same function up to rounding, faster, for attacks to use."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from exitbench.models.compiled import compile_pieces
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.multi_exit import MultiExitNet

DIFFERENCE: Mapping[Precision, float] = {"fp32": 1e-3, "bf16": 0.1}
"""Largest difference, relative to the spread of an exit's logits, that a faithful search model shows: folding changes the order
of rounding (about 1e-6 measured), nothing else; eight bits of mantissa round by 0.4 % at every layer."""


Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class SearchConfig:
    """One way to build a search model.

    Attributes:
        folded: batch normalisation folded into the convolutions, which are laid out channels last.
        precision: of weights and activations; images and logits stay fp32.
        compiled: every stage and head through ``torch.compile``.
    """

    folded: bool = True
    precision: Precision = "fp32"
    compiled: bool = False

    def __str__(self) -> str:
        parts = ["folded" if self.folded else "plain", self.precision, "compiled" if self.compiled else ""]
        return " ".join(filter(None, parts))


PLAIN = SearchConfig(folded=False)
"""The network itself: what is searched on is what decides."""

FOLDED = SearchConfig()


def search_configs(model: EarlyExitNet) -> list[SearchConfig]:
    """The forms that ``model`` has: all of them where it is cut into stages, elsewhere its own search model if it has one."""
    if not _is_ours(model):
        return [PLAIN] if type(model).search_model is EarlyExitNet.search_model else [PLAIN, FOLDED]
    return [PLAIN, *(SearchConfig(True, precision, compiled) for compiled in (False, True) for precision in ("fp32", "bf16"))]


def build_search_model(model: EarlyExitNet, config: SearchConfig) -> EarlyExitNet:
    """The search model of ``model`` in this form, its parameters frozen; ``model`` itself is left as it is.

    Args:
        model: in evaluation mode.

    Raises:
        ValueError: a form that ``model`` does not have.
    """
    if config == PLAIN:
        return model
    if config not in search_configs(model):
        raise ValueError(
            f"{type(model).__name__} has no search model in the configuration {config}; "
            f"it has {', '.join(map(str, search_configs(model)))}"
        )
    search_model = model.search_model()
    if config == FOLDED or not isinstance(search_model, MultiExitNet):
        return search_model
    if search_model is model:
        search_model = copy.deepcopy(model)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    stages, heads = [stage.to(dtype) for stage in search_model.stages], [head.to(dtype) for head in search_model.heads]
    if config.compiled:
        compile_pieces([*stages, *heads])
    # Casts stand outside of what is compiled: passes are counted by a hook on the first stage.
    first = nn.Sequential(_Cast(dtype), stages[0])
    logits = [nn.Sequential(head, _Cast(torch.float32)) for head in heads]
    return MultiExitNet([first, *stages[1:]], logits).eval().requires_grad_(False)


def _is_ours(model: EarlyExitNet) -> bool:
    return type(model) is MultiExitNet  # a subclass may run its stages in a way of its own


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def relative_difference(logits: Tensor, reference: Tensor) -> float:
    """Largest difference over exits, samples and classes of ``(K, B, C)``, relative to each exit's spread in ``reference``."""
    spread = reference.flatten(1).amax(1) - reference.flatten(1).amin(1)
    difference = (logits - reference).flatten(1).abs().amax(1)
    return float((difference / spread.clamp_min(torch.finfo(spread.dtype).tiny)).nan_to_num(nan=1e9, posinf=1e9).max())

"""Builds the search model of a network: a copy for attacks that computes the same function, up to rounding, faster."""

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
"""Largest difference of a faithful search model from the plain one, relative to the spread of an exit's logits. In fp32, folding
changes only the order of rounding (about 1e-6 measured); in bf16, eight bits of mantissa round by 0.4 % at every layer."""


Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class SearchConfig:
    """The configuration of a search model.

    Attributes:
        folded: Whether batch normalisation is folded into the convolutions, which are then laid out channels last.
        precision: Precision of weights and activations; images and logits stay fp32.
        compiled: Whether every stage and head is compiled with ``torch.compile``.
    """

    folded: bool = True
    precision: Precision = "fp32"
    compiled: bool = False

    def __str__(self) -> str:
        parts = ["folded" if self.folded else "plain", self.precision, "compiled" if self.compiled else ""]
        return " ".join(filter(None, parts))


PLAIN = SearchConfig(folded=False)
"""The network itself: attacks search on the model that decides."""

FOLDED = SearchConfig()
"""The default: batch normalisation folded, fp32, not compiled."""


def search_configs(model: EarlyExitNet) -> list[SearchConfig]:
    """Return the configurations that ``model`` supports: all if it is cut into stages, else those of its own search model."""
    if not _is_ours(model):
        return [PLAIN] if type(model).search_model is EarlyExitNet.search_model else [PLAIN, FOLDED]
    return [PLAIN, *(SearchConfig(True, precision, compiled) for compiled in (False, True) for precision in ("fp32", "bf16"))]


def build_search_model(model: EarlyExitNet, config: SearchConfig) -> EarlyExitNet:
    """Build the search model of ``model`` in this configuration, with frozen parameters; ``model`` itself is not changed.

    Args:
        model: A network in evaluation mode.
        config: One of ``search_configs(model)``.

    Raises:
        ValueError: If ``model`` does not support the configuration.
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
    # Casts are not compiled: a hook on the first stage counts passes.
    first = nn.Sequential(_Cast(dtype), stages[0])
    logits = [nn.Sequential(head, _Cast(torch.float32)) for head in heads]
    cast = MultiExitNet([first, *stages[1:]], logits)
    cast.has_gate_scores = model.has_gate_scores
    return cast.eval().requires_grad_(False)


def _is_ours(model: EarlyExitNet) -> bool:
    return type(model) is MultiExitNet  # a subclass may run its stages differently


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def relative_difference(logits: Tensor, reference: Tensor) -> float:
    """Return the largest difference between logits ``(K, B, C)``, relative to the spread of each exit's in ``reference``.

    The spread is the range over samples and classes; a difference that is not finite counts as 1e9.
    """
    spread = reference.flatten(1).amax(1) - reference.flatten(1).amin(1)
    difference = (logits - reference).flatten(1).abs().amax(1)
    return float((difference / spread.clamp_min(torch.finfo(spread.dtype).tiny)).nan_to_num(nan=1e9, posinf=1e9).max())

"""What each exit costs, measured on the network as it runs rather than typed in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.multi_exit import MultiExitNet
from models.zero_weights import ZeroWeights

STRAY = 1e-3
"""Zeros below this share of the weights are taken for chance or rounding, not for pruning, and counted like any weight."""


@dataclass(frozen=True)
class ExitCosts:
    """Cost of one image per exit taken, exit 1 first.

    Attributes:
        mmacs: 10^6 multiply-accumulates of everything that ran up to that exit, every head on the way included. One with
            a weight that is zero counts for nothing: this is what an executor needs that skips them all.
        mflops_paper: the figure of "Triple Wins" (table 1): convolution multiply-accumulates / 2^20 of the
            backbone up to that exit plus that exit's head alone, zero weights or not. For comparison with the paper only.
        mmacs_dense: ``mmacs`` with those of zero weights; the same number in a net that is not pruned.
        sparsity: share of the convolutions' and linear layers' weights, biases apart, that are zero; 0 where it is below
            ``STRAY``.
    """

    mmacs: tuple[float, ...]
    mflops_paper: tuple[float, ...]
    mmacs_dense: tuple[float, ...]
    sparsity: float


def measure_costs(model: MultiExitNet, input_shape: tuple[int, int, int]) -> ExitCosts:
    """Count the multiply-accumulates of every stage and head on one image of ``input_shape``.

    Counted at the dispatcher: functional calls are seen as well as modules.
    """
    mmacs, mflops_paper, mmacs_dense = [], [], []
    so_far = backbone_convolutions = 0
    features = torch.zeros(1, *input_shape, device=next(model.parameters()).device)
    zeros = ZeroWeights(model)
    was_training = model.training
    model.eval()
    # In inference mode the dispatcher would show layers whole instead of the products they consist of.
    with torch.inference_mode(False), torch.no_grad():
        for stage, head in zip(model.stages, model.heads, strict=True):
            features, stage_macs, stage_convolutions = _count(stage, features, zeros)
            _, head_macs, head_convolutions = _count(head, features, zeros)
            so_far += stage_macs + head_macs
            backbone_convolutions += stage_convolutions
            mmacs.append((so_far - zeros.macs) / 1e6)
            mmacs_dense.append(so_far / 1e6)
            mflops_paper.append((backbone_convolutions + head_convolutions) / 2**20)
    model.train(was_training)
    pruned = zeros.share >= STRAY
    return ExitCosts(
        tuple(mmacs if pruned else mmacs_dense), tuple(mflops_paper), tuple(mmacs_dense), zeros.share if pruned else 0.0
    )


def _count(module: nn.Module, x: Tensor, zeros: ZeroWeights) -> tuple[Tensor, int, int]:
    """The module's output, its multiply-accumulates with zeros and all, and those of its convolutions."""
    with FlopCounterMode(display=False) as counter, zeros:
        out: Tensor = module(x)
    by_operator = counter.get_flop_counts().get("Global", {})
    convolutions = sum(flops for operator, flops in by_operator.items() if "convolution" in str(operator))
    return out, counter.get_total_flops() // 2, convolutions // 2

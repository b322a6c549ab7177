"""What each exit costs, measured on the network as it runs rather than typed in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.traced_cost import trace
from exitbench.models.zero_weights import ZeroWeights

_log = logging.getLogger(__name__)

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
        note: what a reader of the figures must know of how they came about; None where they were counted piece by piece.
    """

    mmacs: tuple[float, ...]
    mflops_paper: tuple[float, ...]
    mmacs_dense: tuple[float, ...]
    sparsity: float
    note: str | None = None


def measure_costs(model: EarlyExitNet, input_shape: tuple[int, int, int]) -> ExitCosts:
    """Count the multiply-accumulates of every stage and head on one image of ``input_shape``.

    Counted at the dispatcher: functional calls are seen as well as modules. A network that is not cut into stages is run
    once, and every exit is charged what its logits, and those of the exits before it, depend on.

    Raises:
        ValueError: no multiply-accumulates were found in a network that is not cut into stages.
    """
    if not isinstance(model, MultiExitNet):
        return _traced(model, input_shape)
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
    return _without_zeros(mmacs, mflops_paper, mmacs_dense, zeros)


def count_mmacs(net: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """10^6 multiply-accumulates of one forward of one image through any module, zero weights or not.

    On the meta device as well, where a network has no weights and only shapes are computed.

    Raises:
        ValueError: there are none.
    """
    device = next((tensor.device for tensor in net.parameters() if tensor.ndim), None)
    with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *input_shape, device=device))
    if not counter.get_total_flops():
        raise ValueError("no multiply-accumulates of the network could be counted")
    return float(counter.get_total_flops()) / 2e6


def _without_zeros(
    mmacs: Sequence[float],
    mflops_paper: Sequence[float],
    mmacs_dense: Sequence[float],
    zeros: ZeroWeights,
) -> ExitCosts:
    """The costs of a pruned network without its zero weights, of any other with all of them."""
    pruned = zeros.share >= STRAY
    counted = mmacs if pruned else mmacs_dense
    return ExitCosts(tuple(counted), tuple(mflops_paper), tuple(mmacs_dense), zeros.share if pruned else 0.0)


def _count(module: nn.Module, x: Tensor, zeros: ZeroWeights) -> tuple[Tensor, int, int]:
    """The module's output, its multiply-accumulates with zeros and all, and those of its convolutions."""
    with FlopCounterMode(display=False) as counter, zeros:
        out: Tensor = module(x)
    by_operator = counter.get_flop_counts().get("Global", {})
    convolutions = sum(flops for operator, flops in by_operator.items() if "convolution" in str(operator))
    return out, counter.get_total_flops() // 2, convolutions // 2


def _traced(model: EarlyExitNet, input_shape: tuple[int, int, int]) -> ExitCosts:
    """Costs of a network that cannot be cut: declared, else traced, else the whole network's for every exit."""
    x = torch.zeros(1, *input_shape, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    try:
        costs = _by_exit(model, x)
    finally:
        model.train(was_training)
    if model.exit_costs is not None:
        declared = tuple(model.exit_costs)
        costs = ExitCosts(declared, costs.mflops_paper, declared, 0.0, "costs per exit as declared by the network itself")
    if not costs.mmacs[0] > 0:
        raise ValueError("no multiply-accumulates of the network could be counted; give it exit_costs, in mmacs")
    return costs


def _by_exit(model: EarlyExitNet, x: Tensor) -> ExitCosts:
    n_exits = model.n_exits
    zeros = ZeroWeights(model)
    try:
        traced = trace(model, x, zeros)
        if all(traced.dense) and (n_exits == 1 or traced.dense[0] < traced.total):
            mmacs, dense = ([macs / 1e6 for macs in each] for each in (traced.reached, traced.dense))
            return _without_zeros(mmacs, [macs / 2**20 for macs in traced.convolutions], dense, zeros)
        why = "what each needs could not be told apart"
    except Exception as error:  # noqa: BLE001 - somebody's code meets the tracer: whatever it raises, the whole can be counted
        _log.info("the network could not be traced", exc_info=True)
        why = f"what each needs could not be traced ({type(error).__name__})"
    zeros = ZeroWeights(model)
    with torch.inference_mode(False), torch.no_grad():
        _, macs, convolutions = _count(model, x, zeros)
    mmacs, paper, dense = ([each] * n_exits for each in ((macs - zeros.macs) / 1e6, convolutions / 2**20, macs / 1e6))
    return replace(_without_zeros(mmacs, paper, dense, zeros), note=f"every exit is charged the whole network: {why}")

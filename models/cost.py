"""Measures what each exit costs, on the network as it runs rather than from a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InvalidValue
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.traced_cost import trace
from exitbench.models.zero_weights import ZeroWeights

_log = logging.getLogger(__name__)

STRAY = 1e-3
"""Share of zero weights below which zeros are attributed to chance or rounding, not to pruning, and counted like any weight."""


@dataclass(frozen=True)
class ExitCosts:
    """The cost of one image for each exit that it may take, exit 1 first.

    Attributes:
        mmacs: 10^6 multiply-accumulates of everything that runs up to that exit, including every head on the way. Those by a
            weight of zero are not counted, as an executor that skips zeros does not compute them.
        mflops_paper: The figure of "Triple Wins" (table 1), for comparison with the paper only: multiply-accumulates / 2^20 of
            the convolutions in the backbone up to that exit and in that exit's head, zero weights included.
        mmacs_dense: ``mmacs`` with zero weights included; equal to ``mmacs`` in a network that is not pruned.
        sparsity: Share of the weights of convolutions and linear layers that are zero, without biases; 0 where it is below
            ``STRAY``.
        note: How the figures were obtained, if a reader must know it; None where they were counted piece by piece.
    """

    mmacs: tuple[float, ...]
    mflops_paper: tuple[float, ...]
    mmacs_dense: tuple[float, ...]
    sparsity: float
    note: str | None = None


def measure_costs(model: EarlyExitNet, input_shape: tuple[int, int, int]) -> ExitCosts:
    """Count the multiply-accumulates of every stage and head on one image of ``input_shape``.

    Operations are counted at the dispatcher, so that functional calls are seen as well as modules. A network that is not cut
    into stages is run once, and every exit is charged for all that its logits, and those of the exits before it, depend on.

    Args:
        model: The network; its training mode is restored.
        input_shape: Shape ``(C, H, W)`` of an image.

    Raises:
        InvalidValue: If no multiply-accumulates are found in a network that is not cut into stages.
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
    """Count the 10^6 multiply-accumulates of one forward pass of one image through any module, zero weights included.

    It works on the meta device as well, where a network has no weights and only shapes are computed.

    Raises:
        InvalidValue: If there are none.
    """
    device = next((tensor.device for tensor in net.parameters() if tensor.ndim), None)
    with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *input_shape, device=device))
    if not counter.get_total_flops():
        raise InvalidValue("no multiply-accumulates of the network could be counted")
    return float(counter.get_total_flops()) / 2e6


def _without_zeros(
    mmacs: Sequence[float],
    mflops_paper: Sequence[float],
    mmacs_dense: Sequence[float],
    zeros: ZeroWeights,
) -> ExitCosts:
    """Return the costs without zero weights if the network is pruned, else with all of its weights."""
    pruned = zeros.share >= STRAY
    counted = mmacs if pruned else mmacs_dense
    return ExitCosts(tuple(counted), tuple(mflops_paper), tuple(mmacs_dense), zeros.share if pruned else 0.0)


def _count(module: nn.Module, x: Tensor, zeros: ZeroWeights) -> tuple[Tensor, int, int]:
    """Return the module's output, all of its multiply-accumulates, and those of its convolutions."""
    with FlopCounterMode(display=False) as counter, zeros:
        out: Tensor = module(x)
    by_operator = counter.get_flop_counts().get("Global", {})
    convolutions = sum(flops for operator, flops in by_operator.items() if "convolution" in str(operator))
    return out, counter.get_total_flops() // 2, convolutions // 2


def _traced(model: EarlyExitNet, input_shape: tuple[int, int, int]) -> ExitCosts:
    """Return the costs of a network that cannot be cut: declared, else traced, else those of the whole network."""
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
        raise InvalidValue("no multiply-accumulates of the network could be counted; give it exit_costs, in mmacs")
    return costs


def _order_note(alone: Sequence[int]) -> str | None:
    """Return what is to be said where an exit, alone, would cost less than the one before it; None where none does."""
    falls = [k for k in range(1, len(alone)) if alone[k] < alone[k - 1]]
    if not falls:
        return None
    k = falls[0]
    return (
        f"alone, exit {k + 1} would cost less than exit {k}, and is charged for it as well: are the exits in reverse order? "
        "The first to be computed comes first"
    )


def _by_exit(model: EarlyExitNet, x: Tensor) -> ExitCosts:
    n_exits = model.n_exits
    zeros = ZeroWeights(model)
    try:
        traced = trace(model, x, zeros)
        if all(traced.dense) and (n_exits == 1 or traced.dense[0] < traced.total):
            mmacs, dense = ([macs / 1e6 for macs in each] for each in (traced.reached, traced.dense))
            costs = _without_zeros(mmacs, [macs / 2**20 for macs in traced.convolutions], dense, zeros)
            return replace(costs, note=_order_note(traced.alone))
        why = _order_note(traced.alone) or "what each needs could not be told apart"
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything under the tracer; the whole network can still be counted
        _log.info("the network could not be traced", exc_info=True)
        why = f"what each needs could not be traced ({type(error).__name__})"
    zeros = ZeroWeights(model)
    with torch.inference_mode(False), torch.no_grad():
        _, macs, convolutions = _count(model, x, zeros)
    mmacs, paper, dense = ([each] * n_exits for each in ((macs - zeros.macs) / 1e6, convolutions / 2**20, macs / 1e6))
    return replace(_without_zeros(mmacs, paper, dense, zeros), note=f"every exit is charged the whole network: {why}")

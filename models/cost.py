"""Measures what each exit costs, on the network as it runs rather than from a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from exitbench.models.counting import Counting, shown_in_pieces
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
            the convolutions in the backbone up to that exit and in that exit's head, zero weights included. It is defined for
            the paper's kind of network: a backbone whose products are convolutions, with classifiers behind it; None for others.
        mmacs_dense: ``mmacs`` with zero weights included; equal to ``mmacs`` in a network that is not sparse.
        sparsity: Share of the weights of convolutions and linear layers that are zero, without biases; 0 where it is below
            ``STRAY``.
        note: How the figures were obtained, if a reader must know it; None where they were counted piece by piece.
        uncounted: Names of operators that the network uses and that have no formula, so that ``mmacs`` is a lower bound.
    """

    mmacs: tuple[float, ...]
    mflops_paper: tuple[float, ...] | None
    mmacs_dense: tuple[float, ...]
    sparsity: float
    note: str | None = None
    uncounted: tuple[str, ...] = ()

    @property
    def notes(self) -> str | None:
        """All that a reader must know of the figures, in a line; None for nothing."""
        found = [self.note, f"mmacs is a lower bound: {_no_formula(self.uncounted)}" if self.uncounted else None]
        return "; ".join(filter(None, found)) or None


def measure_costs(model: EarlyExitNet, input_shape: tuple[int, int, int]) -> ExitCosts:
    """Count the multiply-accumulates of every stage and head on one image of ``input_shape``.

    Operations are counted at the dispatcher, so that functional calls are seen as well as modules; what has no formula is named
    (``exitbench.models.operators`` says what is counted). A network that is not cut into stages is run once. If it yields its
    exits one by one, each is charged for all that runs before it is there; else for all that its logits, and those of the exits
    before it, depend on.

    Args:
        model: The network; its training mode is restored.
        input_shape: Shape ``(C, H, W)`` of an image.

    Raises:
        InvalidValue: If no multiply-accumulates are found in a network that is not cut into stages.
    """
    if not isinstance(model, MultiExitNet):
        return _traced(model, input_shape)
    features = torch.zeros(1, *input_shape, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    zeros = ZeroWeights(model)
    stages, heads = [], []
    for stage, head in zip(model.stages, model.heads, strict=True):
        features, counted = _count(stage, features, zeros)
        stages.append(counted)
        heads.append(_count(head, features, zeros)[1])
    model.train(was_training)
    return _of_pieces(stages, heads, zeros)


def _of_pieces(stages: Sequence[Counting], heads: Sequence[Counting], zeros: ZeroWeights) -> ExitCosts:
    """Return the costs of a network from those of its stages and heads."""
    each = [*zip(stages, heads, strict=True)]
    dense = [*accumulate(stage.macs + head.macs for stage, head in each)]
    saved = [*accumulate(stage.zero_macs + head.zero_macs for stage, head in each)]
    backbone = [*accumulate(stage.convolutions for stage in stages)]
    paper = [(convolutions + head.convolutions) / 2**20 for convolutions, head in zip(backbone, heads, strict=True)]
    convolutional = backbone[-1] > 0 and all(stage.macs == stage.convolutions for stage in stages)
    mmacs = [(macs - zero) / 1e6 for macs, zero in zip(dense, saved, strict=True)]
    uncounted = sorted(set().union(*(piece.uncounted for pieces in each for piece in pieces)))
    costs = _without_zeros(mmacs, paper if convolutional else None, [macs / 1e6 for macs in dense], zeros)
    return _bounded(costs, uncounted)


def count_mmacs(net: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """Count the 10^6 multiply-accumulates of one forward pass of one image through any module, zero weights included.

    It works on the meta device as well, where a network has no weights and only shapes are computed.

    Raises:
        InvalidValue: If there are none, or an operator has no formula.
    """
    device = next((tensor.device for tensor in net.parameters() if tensor.ndim), None)
    with shown_in_pieces(), Counting() as counted:
        net(torch.zeros(1, *input_shape, device=device))
    if counted.uncounted:
        raise InvalidValue(_no_formula(sorted(counted.uncounted)))
    if not counted.macs:
        raise InvalidValue("no multiply-accumulates of the network could be counted")
    return float(counted.macs) / 1e6


def _without_zeros(
    mmacs: Sequence[float],
    mflops_paper: Sequence[float] | None,
    mmacs_dense: Sequence[float],
    zeros: ZeroWeights,
) -> ExitCosts:
    """Return the costs without zero weights if the network is sparse, else with all of its weights."""
    sparse = zeros.share >= STRAY
    counted = mmacs if sparse else mmacs_dense
    paper = None if mflops_paper is None else tuple(mflops_paper)
    return ExitCosts(tuple(counted), paper, tuple(mmacs_dense), zeros.share if sparse else 0.0)


def _bounded(costs: ExitCosts, uncounted: Sequence[str]) -> ExitCosts:
    """Return the costs with the operators that they leave out; the paper's figure is not defined for a part of a network."""
    return replace(costs, uncounted=tuple(uncounted), mflops_paper=None if uncounted else costs.mflops_paper)


def _no_formula(operators: Sequence[str]) -> str:
    return f"no formula for the multiply-accumulates of {', '.join(operators)}"


def _count(module: nn.Module, x: Tensor, zeros: ZeroWeights) -> tuple[Tensor, Counting]:
    """Return the module's output, and what was counted."""
    with shown_in_pieces(), Counting(zeros) as counted:
        out: Tensor = module(x)
    return out, counted


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
        return ExitCosts(declared, costs.mflops_paper, declared, 0.0, "costs per exit as declared by the network itself")
    if not costs.mmacs[0] > 0:
        why = f" ({_no_formula(costs.uncounted)})" if costs.uncounted else ""
        raise InvalidValue(f"no multiply-accumulates of the network could be counted{why}; give it exit_costs, in mmacs")
    return costs


def _yielded(model: EarlyExitNet, x: Tensor, zeros: ZeroWeights) -> ExitCosts | None:
    """Return the costs of a network that stops at its exits, of what ran before each; None if nothing is multiplied by then."""
    dense, saved = [], []
    with shown_in_pieces(), Counting(zeros) as counted:
        for _ in model.exits(x):
            dense.append(counted.macs)
            saved.append(counted.zero_macs)
    if not dense[0]:
        return None
    mmacs = [(macs - zero) / 1e6 for macs, zero in zip(dense, saved, strict=True)]
    costs = _without_zeros(mmacs, None, [macs / 1e6 for macs in dense], zeros)
    whole = len(dense) > 1 and dense[0] == dense[-1]
    note = "every exit is charged the whole network: all of it runs before the first exit is there" if whole else None
    return _bounded(replace(costs, note=note), sorted(counted.uncounted))


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
    if model.stops and (costs := _yielded(model, x, zeros)) is not None:
        return costs
    try:
        traced = trace(model, x, zeros)
        if all(traced.dense) and (n_exits == 1 or traced.dense[0] < traced.total):
            mmacs, dense = ([macs / 1e6 for macs in each] for each in (traced.reached, traced.dense))
            paper = [macs / 2**20 for macs in traced.convolutions] if all(traced.convolutional) else None
            costs = replace(_without_zeros(mmacs, paper, dense, zeros), note=_order_note(traced.alone))
            return _bounded(costs, traced.uncounted)
        why = _order_note(traced.alone) or "what each needs could not be told apart"
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything under the tracer; the whole network can still be counted
        _log.info("the network could not be traced", exc_info=True)
        why = f"what each needs could not be traced ({type(error).__name__})"
    zeros = ZeroWeights(model)
    _, counted = _count(model, x, zeros)
    mmacs, dense = ([each / 1e6] * n_exits for each in (counted.macs - counted.zero_macs, counted.macs))
    costs = replace(_without_zeros(mmacs, None, dense, zeros), note=f"every exit is charged the whole network: {why}")
    return _bounded(costs, sorted(counted.uncounted))

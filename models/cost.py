"""What each exit costs, measured on the network as it runs rather than typed in."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.early_exit import EarlyExitNet
from models.multi_exit import MultiExitNet
from models.traced_cost import trace

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExitCosts:
    """Cost of one image per exit taken, exit 1 first.

    Attributes:
        mmacs: 10^6 multiply-accumulates of everything that ran up to that exit, every head on the way included.
        mflops_paper: the figure of "Triple Wins" (table 1): convolution multiply-accumulates / 2^20 of the
            backbone up to that exit plus that exit's head alone. For comparison with the paper only.
        note: what a reader of the figures must know of how they came about; None where they were counted piece by piece.
    """

    mmacs: tuple[float, ...]
    mflops_paper: tuple[float, ...]
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
    mmacs, mflops_paper = [], []
    so_far = backbone_convolutions = 0
    features = torch.zeros(1, *input_shape, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for stage, head in zip(model.stages, model.heads, strict=True):
            features, stage_macs, stage_convolutions = _count(stage, features)
            _, head_macs, head_convolutions = _count(head, features)
            so_far += stage_macs + head_macs
            backbone_convolutions += stage_convolutions
            mmacs.append(so_far / 1e6)
            mflops_paper.append((backbone_convolutions + head_convolutions) / 2**20)
    model.train(was_training)
    return ExitCosts(tuple(mmacs), tuple(mflops_paper))


def _count(module: nn.Module, x: Tensor) -> tuple[Tensor, int, int]:
    """The module's output, its multiply-accumulates, and those of its convolutions."""
    with FlopCounterMode(display=False) as counter:
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
        mmacs, mflops_paper, note = _by_exit(model, x)
    finally:
        model.train(was_training)
    if model.exit_costs is not None:
        mmacs, note = model.exit_costs, "costs per exit as declared by the network itself"
    if not mmacs[0] > 0:
        raise ValueError("no multiply-accumulates of the network could be counted; give it exit_costs, in mmacs")
    return ExitCosts(mmacs, mflops_paper, note)


def _by_exit(model: EarlyExitNet, x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...], str | None]:
    n_exits = model.n_exits
    try:
        traced = trace(model, x)
        if all(traced.reached) and (n_exits == 1 or traced.reached[0] < traced.total):
            paper = tuple(macs / 2**20 for macs in traced.convolutions)
            return tuple(macs / 1e6 for macs in traced.reached), paper, None
        why = "what each needs could not be told apart"
    except Exception as error:  # noqa: BLE001 - somebody's code meets the tracer: whatever it raises, the whole can be counted
        _log.info("the network could not be traced", exc_info=True)
        why = f"what each needs could not be traced ({type(error).__name__})"
    with torch.no_grad():
        _, macs, convolutions = _count(model, x)
    return (macs / 1e6,) * n_exits, (convolutions / 2**20,) * n_exits, f"every exit is charged the whole network: {why}"

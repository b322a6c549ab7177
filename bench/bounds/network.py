"""Bounds of a traced network: intervals of all layers, and lower bounds of linear functions of the exits' logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exitbench.bounds.affine import Affine
from exitbench.bounds.interval import FLOAT64, Interval
from exitbench.bounds.layer import Layer
from exitbench.bounds.nonlinear import ReLU


@dataclass(frozen=True)
class Node:
    """A layer of a network, and the numbers of the nodes that it reads; node 0 is the image."""

    layer: Layer
    reads: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """A network as a list of layers, in an order in which they can be computed.

    Attributes:
        nodes: Nodes 1, 2, ... in order; node 0 is the image and not in the list.
        exits: The node of each exit's logits.
    """

    nodes: tuple[Node, ...]
    exits: tuple[int, ...]

    def node(self, number: int) -> Node:
        """Return node ``number``, counted from 1."""
        return self.nodes[number - 1]

    def is_affine(self, number: int) -> bool:
        """Return whether the node is an affine layer, through which differences are carried without a loss."""
        return number > 0 and isinstance(self.node(number).layer, Affine)


@dataclass(frozen=True)
class Features:
    """What is known of all nodes' values, for a batch of balls.

    Attributes:
        network: The network.
        intervals: Bounds of the value of each node that is computed.
        errors: Bounds of each node's own rounding error; None where it is exact, or rounding is left out.
        rounding: Whether rounding is accounted for.
    """

    network: Network
    intervals: tuple[Interval, ...]
    errors: tuple[Tensor | None, ...]
    rounding: bool

    def of(self, number: int) -> Interval:
        """Return the bounds of a node's value."""
        return self.intervals[number]

    def inputs(self, number: int) -> list[Interval]:
        """Return the bounds of what a node reads."""
        return [self.of(each) for each in self.network.node(number).reads]

    def rows(self, rows: Tensor) -> Features:
        """Return what is known of some of the balls."""
        intervals = tuple(Interval(each.low[rows], each.high[rows]) for each in self.intervals)
        errors = tuple(None if each is None else each[rows] for each in self.errors)
        return Features(self.network, intervals, errors, self.rounding)


def interval_bounds(network: Network, image: Interval, *, rounding: bool = True, neurons: int = 0) -> Features:
    """Return interval bounds of all nodes (IBP: Gowal et al., "On the Effectiveness of Interval Bound Propagation", 2018).

    Args:
        network: The network.
        image: Bounds of the pixels ``(B, C, H, W)``.
        rounding: Whether the bounds hold for fp32 arithmetic; without, for real numbers, up to the rounding of the bounds.
        neurons: Inputs of ReLUs with at most so many values are bounded by backward substitution as well.
    """
    intervals: list[Interval] = [image]
    errors: list[Tensor | None] = [None]
    activated = {node.reads[0] for node in network.nodes if isinstance(node.layer, ReLU)}
    for number, node in enumerate(network.nodes, start=1):
        reads = [intervals[each] for each in node.reads]
        found, error = node.layer.interval(*reads), node.layer.error(*reads) if rounding else None
        if error is not None:
            found = Interval(found.low - error, found.high + error)
        intervals.append(found)
        errors.append(error)
        if number in activated and found.low[0].numel() <= neurons and node.reads != (0,):
            so_far = Features(network, tuple(intervals), tuple(errors), rounding)
            intervals[-1] = found.intersected(node_bounds(so_far, number))
    return Features(network, tuple(intervals), tuple(errors), rounding)


def lower_bounds(features: Features, number: int, rows: Tensor, *, through: bool = True) -> Tensor:
    """Return lower bounds ``(B, R)`` of linear functions of a node's value, by backward substitution.

    ``rows . value`` is replaced by a linear lower bound in the values of the nodes before, layer by layer, and at the end by
    its least value in the box. Every node's own rounding error ``e`` adds ``-|coefficient| e``; the rounding of the float64
    substitution itself adds ``-FLOAT64 |coefficient| |value|`` at each node.

    Args:
        features: Intervals of the nodes before.
        number: The node.
        rows: Coefficients ``(B, R, *outputs)``.
        through: Whether to go on to the image (CROWN: Zhang et al., NeurIPS 2018, theorem 3.2); without, the substitution ends
            at the first layers that are not affine, at their intervals: bounds of differences that cost no more than those of
            logits.
    """
    network = features.network
    waiting: dict[int, Tensor] = {number: rows}
    total = rows.new_zeros(rows.shape[:2])
    for current in range(number, -1, -1):
        if current not in waiting:
            continue
        a = waiting.pop(current)
        if current == 0 or not (through or network.is_affine(current)):
            total = total + _least(a, features.of(current))
            continue
        error = features.errors[current]
        if error is not None:
            total = total - (a.abs() * error[:, None]).flatten(2).sum(-1)
        inputs = features.inputs(current)
        node = network.node(current)
        backs, constant = node.layer.backward(a, inputs, features.of(current))
        total = total + constant
        for read, back, interval in zip(node.reads, backs, inputs, strict=True):
            if features.rounding:
                total = total - FLOAT64 * (back.abs() * interval.magnitude[:, None]).flatten(2).sum(-1)
            waiting[read] = waiting[read] + back if read in waiting else back
    return total


def _least(a: Tensor, box: Interval) -> Tensor:
    """Return the least value ``(B, R)`` of ``a . x`` for x in the box, less the rounding of this sum."""
    terms = a * box.centre[:, None] - a.abs() * (box.radius + FLOAT64 * box.magnitude)[:, None]
    return terms.flatten(2).sum(-1)


def node_bounds(features: Features, number: int, chunk: int = 256) -> Interval:
    """Return bounds of a node's value by backward substitution of each of its components, ``chunk`` at a time."""
    shape = features.of(number).low.shape
    batch, width = shape[0], shape[1:].numel()
    low, high = [], []
    like = features.of(number).low
    for start in range(0, width, chunk):
        rows = torch.zeros((min(chunk, width - start), width), dtype=like.dtype, device=like.device)
        rows[torch.arange(len(rows)), start + torch.arange(len(rows))] = 1
        each = rows.view(1, -1, *shape[1:]).expand(batch, -1, *shape[1:])
        low.append(lower_bounds(features, number, each))
        high.append(-lower_bounds(features, number, -each))
    return Interval(torch.cat(low, 1).view(shape), torch.cat(high, 1).view(shape))


def differences(labels: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Return rows ``(B, classes, classes)`` whose product with logits is ``z_label - z_j`` for each class j."""
    unit = torch.eye(n_classes, dtype=dtype, device=labels.device)
    own: Tensor = labels[:, None] == torch.arange(n_classes, device=labels.device)
    return own.to(dtype)[:, None, :] - unit[None]


def margin_bounds(features: Features, k: int, classes: Tensor, *, through: bool = True) -> Tensor:
    """Return lower bounds ``(B, classes)`` of one class's logit minus each at exit ``k``, from the difference, not from logits.

    Args:
        features: What is known of all nodes.
        k: The exit, 0-based.
        classes: The class ``(B,)`` of each ball.
        through: See ``lower_bounds``.
    """
    number = features.network.exits[k]
    logits = features.of(number).low
    return lower_bounds(features, number, differences(classes, logits.shape[1], logits.dtype), through=through)

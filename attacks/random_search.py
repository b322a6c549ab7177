"""A random search on the deployed rule, for rules that give attacks no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from exitbench.attacks.adaptive_search import COMPACT_EVERY, Search
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Margin
from exitbench.attacks.regions import ThreatModel
from exitbench.models.policies import deployed_logits

DRAW = 1_000_000
"""Restart of the draws of all queries; those of the gradient search are counted from 0."""
LARGEST, SMALLEST = 0.8, 0.01
"""Share of the pixels that a proposal changes, at the start and at the end; it falls geometrically."""


@torch.no_grad()
def search_randomly(search: Search, noise: Noise, queries: int) -> None:
    """Go on from the closest iterates with proposals that change a random rectangle of the image.

    A proposal is kept if it lowers the margin of the deployed prediction, as in the Square attack (Andriushchenko et al., ECCV
    2020). Half of the proposals put the rectangle's channels at the ends of an Linf ball, the others anywhere in it; for L2 they
    are projected. Only the deployed prediction is asked for.

    Args:
        search: The state of the search; what breaks a sample is recorded there.
        noise: The random numbers of its samples.
        queries: Number of forward passes per sample.
    """
    x_adv = search.candidates.clone()
    margin = torch.full_like(search.distances[0], -torch.inf)
    rows, every = search.survivors(), COMPACT_EVERY.get(x_adv.device.type, 1)
    draws = noise.uniform(x_adv.new_empty(len(x_adv), queries, 6 + x_adv.shape[1]), DRAW)
    for query in range(queries):
        if query % every == 0:
            rows = search.survivors()
        if not len(rows):
            return
        share = LARGEST * (SMALLEST / LARGEST) ** (query / queries)
        tried = x_adv[rows] if query == 0 else _proposed(x_adv[rows], search.x[rows], search.region, draws[rows, query], share)
        logits = search.model(tried)
        search.record(rows, tried, logits)
        found = Margin()(deployed_logits(logits, search.policy)[0][None], search.y[rows])[0]
        better = found >= margin[rows]
        x_adv[rows] = torch.where(better.view(-1, 1, 1, 1), tried, x_adv[rows])
        margin[rows] = torch.where(better, found, margin[rows])


def _proposed(x_adv: Tensor, x: Tensor, region: ThreatModel, draws: Tensor, share: float) -> Tensor:
    """Return images ``(B, C, H, W)`` with one rectangle of about ``share`` of the pixels changed."""
    height, width = x.shape[-2:]
    top, left, stretch, kind, size, sign = draws[:, :6].unbind(1)
    rows = (share**0.5 * height * 2 ** (2 * stretch - 1)).round().clamp(1, height)
    columns = (share * height * width / rows).round().clamp(1, width)
    first_row, first_column = (top * (height - rows + 1)).floor(), (left * (width - columns + 1)).floor()
    i, j = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside_rows = (i >= first_row[:, None]) & (i < (first_row + rows)[:, None])
    inside_columns = (j >= first_column[:, None]) & (j < (first_column + columns)[:, None])
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    moves = 2 * draws[:, 6:] - 1
    moves = torch.where((kind < 0.5)[:, None], moves.sign(), moves)[:, :, None, None]
    if region.norm == "Linf":
        return region.project(torch.where(inside, x + region.eps * moves, x_adv), x)
    length = region.eps * (size * (1 if share > 0.1 else 0.3)) * (2 * (sign > 0.5) - 1)
    change = torch.where(inside, moves, 0.0)
    unit = change / change.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return region.project(x_adv + length.view(-1, 1, 1, 1) * unit, x)

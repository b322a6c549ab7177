"""The Square attack of the package ``pyautoattack`` in Linf, with several of an image's queries in one batch.

A query changes one square of the best image so far and is kept where the loss falls, which soon becomes rare. Which squares are
tried is drawn independently of what the network says, so that the next few queries can be made at once, as if none of them were
kept; behind the first that is, the others are made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exitbench.models.spare_passes import spared

WIDTH = {"cpu": 32, "cuda": 512}
"""Number of images in a batch up to which it is filled with work ahead of its turn."""

FIRST_REACH = 4
"""Queries made at once for an image at first; later up to twice as many as it went without a change."""


def square(attack: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return what ``SquareAttack.perturb`` does in Linf: the images that fool, and clean ones where none was found."""
    attack.init_hyperparam(x)
    x_adv, right = x.clone(), attack.predict(x).max(1)[1] == y
    torch.manual_seed(attack.seed)
    rows = right.nonzero().flatten()
    if len(rows):
        with torch.no_grad():
            found = _Queries(attack, x[rows], y[rows]).run()
            fools = attack.predict(found).max(1)[1] != y[rows]
        x_adv[rows[fools]] = found[fools]
    return x_adv


@dataclass(eq=False)
class _Row:
    """How far the search for an image has come."""

    index: int
    query: int = 0
    reach: int = FIRST_REACH


class _Queries:
    """The queries of one run.

    Args:
        attack: The package's attack, prepared for images of this shape.
        x: Clean images ``(B, C, H, W)`` that the network gets right.
        y: Labels ``(B,)``.
    """

    def __init__(self, attack: Any, x: Tensor, y: Tensor) -> None:
        self.attack, self.x, self.y = attack, x, y
        stripes = attack.random_choice([len(x), x.shape[1], 1, x.shape[3]])
        self.best = torch.clamp(x + attack.eps * stripes, 0.0, 1.0)
        self.margins = self._margins(self.best, y)
        self.squares = _Squares.drawn(attack, x)

    def run(self) -> Tensor:
        """Make all queries, for each image until one fools, and return the best images."""
        width = WIDTH.get(self.x.device.type, 1)
        going = [_Row(index) for index in (self.margins > 0).nonzero().flatten().tolist()]
        while going:
            for row in going:
                row.reach = min(row.reach, max(1, width // len(going)), self.attack.n_queries - row.query)
            self._look(going)
            going = [row for row in going if self.margins[row.index] > 0 and row.query < self.attack.n_queries]
        return self.best

    def _look(self, rows: list[_Row]) -> None:
        """Make the next queries of each row, and keep the first that is better."""
        tried = [self._candidates(row) for row in rows]
        of_rows = torch.cat([self.y[row.index].expand(len(images)) for row, images in zip(rows, tried, strict=True)])
        margins = torch.split(self._margins(torch.cat(tried), of_rows), [len(images) for images in tried])
        for row, images, found in zip(rows, tried, margins, strict=True):
            better = ((found < self.margins[row.index]) | (found <= 0)).nonzero().flatten()
            used = int(better[0]) + 1 if len(better) else len(images)
            if len(better):
                self.best[row.index], self.margins[row.index] = images[used - 1], found[used - 1]
            spared(len(images) - used, 0)
            row.query += used
            row.reach = 2 * used

    def _candidates(self, row: _Row) -> Tensor:
        """Return the images of a row's next queries, as if none of them were kept."""
        x, eps = self.x[row.index], self.attack.eps
        x_new = self.best[row.index] + self.squares.changes(row.query, row.reach, self.x.shape[1:])
        return torch.clamp(torch.min(torch.max(x_new, x - eps), x + eps), 0.0, 1.0)

    def _margins(self, x: Tensor, y: Tensor) -> Tensor:
        margins: Tensor = self.attack.margin_and_loss(x, y)[0]
        return margins


@dataclass(frozen=True)
class _Squares:
    """The squares of all queries: their corners and sides ``(Q, 1)``, and the change in each channel ``(Q, C, 1, 1)``."""

    top: Tensor
    left: Tensor
    side: Tensor
    change: Tensor

    @staticmethod
    def drawn(attack: Any, x: Tensor) -> _Squares:
        """Draw what the package draws from query to query, in its order."""
        channels, height, width = x.shape[1:]
        tops, lefts, sides, changes = [], [], [], []
        for query in range(attack.n_queries):
            side = max(round(math.sqrt(attack.p_selection(query) * (channels * height * width) / channels)), 1)
            sides.append(min(side, height, width))
            tops.append(attack.random_int(0, height - sides[-1]))
            lefts.append(attack.random_int(0, width - sides[-1]))
            changes.append(2.0 * attack.eps * attack.random_choice([channels, 1, 1]))
        of_all = torch.tensor(sides, device=x.device)[:, None]
        return _Squares(torch.stack(tops), torch.stack(lefts), of_all, torch.stack(changes))

    def changes(self, start: int, n: int, shape: torch.Size) -> Tensor:
        """Return the changes ``(n, C, H, W)`` of ``n`` queries."""
        part = slice(start, start + n)
        along_y, along_x = torch.arange(shape[1], device=self.side.device), torch.arange(shape[2], device=self.side.device)
        in_y = (along_y >= self.top[part]) & (along_y < self.top[part] + self.side[part])
        in_x = (along_x >= self.left[part]) & (along_x < self.left[part] + self.side[part])
        inside = in_y[:, None, :, None] & in_x[:, None, None, :]
        return torch.where(inside, self.change[part], 0.0)

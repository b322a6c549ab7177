"""The network that exits early: stages in a row, one head behind each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn


class MultiExitNet(nn.Module):
    """A backbone cut into stages, with a classifier head behind each stage.

    Exit ``k`` (0-based here, 1-based in everything a user sees) is head ``k`` applied to the
    features of stage ``k``. The last head is the final classifier, so a plain network is the
    case of one stage and one head (RDI-Nets: Hu, Chen, Wang & Wang, "Triple Wins", ICLR 2020, section 3).
    """

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        if not stages or len(stages) != len(heads):
            raise ValueError(f"need one head per stage: {len(stages)} stages, {len(heads)} heads")
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads)

    @property
    def n_exits(self) -> int:
        """K, the number of exits, the final classifier included."""
        return len(self.stages)

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        """Logits of the exits ``0..upto`` (all by default); later stages are not run.

        Args:
            x: images ``(B, C, H, W)`` in [0, 1].
            upto: last exit wanted, 0-based.

        Returns:
            Logits ``(upto + 1, B, classes)``.
        """
        last = self.n_exits - 1 if upto is None else upto
        if not 0 <= last < self.n_exits:
            raise ValueError(f"exit index {last} is outside 0..{self.n_exits - 1}")
        return torch.stack(list(islice(self.exits(x), last + 1)))

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        """Yield each exit's logits ``(B, classes)`` in order, computing no stage before it is asked for."""
        features = x
        for stage, head in zip(self.stages, self.heads, strict=True):
            features = stage(features)
            yield head(features)


def without_branches(net: MultiExitNet) -> MultiExitNet:
    """The backbone of ``net`` as a one-exit net: all stages in a row, the final head only."""
    return MultiExitNet([nn.Sequential(*net.stages)], [net.heads[-1]])

"""What a network that exits early is to attacks, judges and views: the logits of each of its exits, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Self

import torch
from torch import Tensor, nn

from exitbench.models.policies import Policy, deployed_logits


class EarlyExitNet(nn.Module, ABC):
    """A network of K exits, whether it can be cut at them (``MultiExitNet``) or not (``ForeignNet``).

    Exits are 0-based here, 1-based in everything a user sees. The last is the final classifier, so that a plain network
    is one of one exit.

    Attributes:
        exit_costs: what the network itself says that its exits cost, in mmacs; None where it is to be measured.
    """

    exit_costs: tuple[float, ...] | None = None

    @property
    @abstractmethod
    def n_exits(self) -> int:
        """K, the number of exits, the final classifier included."""

    @property
    @abstractmethod
    def entry(self) -> nn.Module:
        """The module that every batch goes through first, however far it goes: passes are counted there."""

    @abstractmethod
    def exits(self, x: Tensor) -> Iterator[Tensor]:
        """Yield each exit's logits ``(B, classes)`` in order, computing no more than needs be before it is asked for."""

    @abstractmethod
    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        """This network, its weights shared, on what ``first`` makes of the images."""

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        """Logits of the exits ``0..upto`` (all by default).

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

    def deployed(self, x: Tensor, policy: Policy) -> Tensor:
        """Logits ``(B, classes)`` at the exit that ``policy`` takes; gradients flow through that exit alone."""
        return deployed_logits(self(x), policy)[0]

    def search_model(self) -> EarlyExitNet:
        """What attacks may search on: the same function up to rounding, faster where that can be had."""
        return self

    def placed(self, device: torch.device) -> Self:
        """This network on ``device``, laid out in memory as it computes fastest."""
        return self.to(device)

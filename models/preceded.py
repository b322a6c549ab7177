"""Puts a module, such as a normalisation, in front of a network that is not cut into plain stages."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy


class Preceded(EarlyExitNet):
    """``net`` with the module ``first`` in front of it."""

    def __init__(self, first: nn.Module, net: EarlyExitNet) -> None:
        super().__init__()
        self.first, self.net = first, net
        self.exit_costs, self.has_gate_scores, self.stops = net.exit_costs, net.has_gate_scores, net.stops
        self.training = net.training

    @property
    def n_exits(self) -> int:
        return self.net.n_exits

    @property
    def entry(self) -> nn.Module:
        return self.net.entry

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        return self.net.exits(self.first(x))

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        logits: Tensor = self.net(self.first(x), upto)
        return logits

    def deployed(self, x: Tensor, policy: Policy) -> Tensor:
        return self.net.deployed(self.first(x), policy)

    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        return Preceded(first, self)

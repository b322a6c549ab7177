"""A network that tests the iterates of an attack under the deployed rule and stops computing samples that are broken."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from exitbench.attacks.adaptive_search import COMPACT_EVERY
from exitbench.attacks.regions import ThreatModel
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.policies import Policy, deployed_logits

ROUNDING = 1e-6
"""Distance by which an iterate may exceed the ball, for rounding."""


class EarlyStopModel(EarlyExitNet):
    """A wrapper of ``net`` for an attack on the samples ``x``, whichever exits the attack uses.

    A batch of the shape of ``x`` is taken for iterates of these samples, row by row. That is sound in any case: an image in the
    ball around a sample that the deployed rule gets wrong breaks it. From then on the sample's logits are zeros without a
    gradient, so that it costs nothing. Stages behind the last exit asked for run without a graph.

    Args:
        net: The network to search on.
        x: Clean images ``(B, C, H, W)`` in [0, 1].
        y: Labels ``(B,)``.
        policy: The deployed rule.
        region: Linf or L2 ball.

    Attributes:
        broken: ``(B,)`` bool, whether an iterate broke the sample.
        found: ``(B, C, H, W)``, the first image that broke each sample; the clean image where none did.
    """

    def __init__(self, net: EarlyExitNet, x: Tensor, y: Tensor, policy: Policy, region: ThreatModel) -> None:
        super().__init__()
        self.net, self.x, self.y, self.policy, self.region = net, x, y, policy, region
        self.broken, self.found = torch.zeros_like(y, dtype=torch.bool), x.clone()
        self.training = net.training
        self._every = COMPACT_EVERY.get(x.device.type, 1)
        self._looks = self._classes = 0
        self._rows = torch.arange(len(y), device=x.device)

    @property
    def n_exits(self) -> int:
        return self.net.n_exits

    @property
    def entry(self) -> nn.Module:
        return self.net.entry

    def exits(self, x: Tensor) -> Iterator[Tensor]:
        return self.net.exits(x)  # attacks that go exit by exit test iterates themselves

    def deployed(self, x: Tensor, policy: Policy) -> Tensor:
        return self.net.deployed(x, policy)

    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        return self.net.preceded_by(first)

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        if x.shape != self.x.shape:
            logits: Tensor = self.net(x, upto)
            return logits
        if self._looks % self._every == 0:
            self._rows = (~self.broken).nonzero().flatten()
        self._looks += 1
        last = self.n_exits if upto is None else upto + 1
        rows = self._rows
        if not len(rows):
            return (0 * x.flatten(1).sum(1))[None, :, None].expand(last, -1, self._classes)
        some = x[rows]
        exits = self.net.exits(some)
        logits = torch.stack([next(exits) for _ in range(last)])
        with torch.no_grad():
            self._test(rows, some.detach(), torch.cat([logits.detach(), *(rest[None] for rest in exits)]))
        self._classes = logits.shape[-1]
        return logits.new_zeros(last, len(x), logits.shape[-1]).index_copy(1, rows, logits)

    def _test(self, rows: Tensor, x: Tensor, logits: Tensor) -> None:
        wrong = deployed_logits(logits, self.policy)[0].argmax(-1) != self.y[rows]
        inside = self.region.distance(x, self.x[rows]) <= self.region.eps + ROUNDING
        boxed = ((x >= 0) & (x <= 1)).flatten(1).all(1)
        new = wrong & inside & boxed & ~self.broken[rows]
        self.found[rows] = torch.where(new.view(-1, 1, 1, 1), x, self.found[rows])
        self.broken[rows] |= new

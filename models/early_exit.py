"""The interface of early-exit networks, as attacks, the runner and views see them: the logits of each exit, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Self

import torch
from torch import Tensor, nn

from exitbench.models.errors import ChangedOutputs
from exitbench.models.own_code import is_own
from exitbench.models.policies import Policy
from exitbench.models.user_code import forwarded, guarded


class EarlyExitNet(nn.Module, ABC):
    """A network with K exits, whether it can be cut at them (``MultiExitNet``) or not (``ForeignNet``).

    Exits are 0-based here and 1-based in everything that a user sees. The last exit is the final classifier, so that a plain
    network has one exit.

    Attributes:
        exit_costs: Cost of each exit in mmacs, as declared by the network itself; None if it is to be measured.
        has_gate_scores: Whether the logits of all exits but the last carry the scores of gate heads
            (``exitbench.models.gate_scores``).
        stops: Whether ``exits`` computes no exit before it is asked for.
        grid: N if every image is rounded to multiples of 1/N first (``exitbench.models.on_grid``); None if it is taken as it is.
    """

    exit_costs: tuple[float, ...] | None = None
    has_gate_scores: bool = False
    stops: bool = False
    grid: int | None = None

    def __init_subclass__(cls, **named: Any) -> None:
        """Hand networks of somebody's own class copies of images, and keep torch's state ours (``models.user_code``)."""
        super().__init_subclass__(**named)
        if not is_own(cls.__module__):
            for name in {"exits", "forward", "deployed"} & set(vars(cls)):
                setattr(cls, name, guarded(vars(cls)[name]))

    @property
    @abstractmethod
    def n_exits(self) -> int:
        """K, the number of exits, the final classifier included."""

    @property
    @abstractmethod
    def entry(self) -> nn.Module:
        """The module that every batch passes first; forward and backward passes are counted there."""

    @abstractmethod
    def exits(self, x: Tensor) -> Iterator[Tensor]:
        """Yield each exit's logits ``(B, classes)`` in order, and compute no more than is needed for those asked for."""

    @abstractmethod
    def preceded_by(self, first: nn.Module) -> EarlyExitNet:
        """Return this network with the module ``first`` in front of it; weights are shared."""

    def forward(self, x: Tensor, upto: int | None = None) -> Tensor:
        """Compute the logits of the exits ``0..upto`` (all by default).

        Args:
            x: Images ``(B, C, H, W)`` in [0, 1].
            upto: Last exit to compute, 0-based; None for all.

        Returns:
            Logits ``(upto + 1, B, classes)``.

        Raises:
            ValueError: If the network has no exit ``upto``.
            ChangedOutputs: If ``exits`` ends before it.
        """
        last = self.n_exits - 1 if upto is None else upto
        if not 0 <= last < self.n_exits:
            raise ValueError(f"exit index {last} is outside 0..{self.n_exits - 1}")
        with forwarded(training=self.training):
            found = list(islice(self.exits(x), last + 1))
        if len(found) <= last:
            raise ChangedOutputs(f"the network computed {len(found)} exits, it has {self.n_exits}")
        return torch.stack(found)

    def leaving_graph(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Compute the logits ``(K, B, classes)`` of all exits in one pass that is no longer recorded than gradients need it.

        Args:
            x: Images ``(B, C, H, W)``, those whose gradient is needed through the most exits first.
            counts: For each exit, the number of images, from the first, whose gradient flows through it; they do not rise.
        """
        exits = self.exits(x)
        found: list[Tensor] = []
        for count in counts:
            with torch.set_grad_enabled(torch.is_grad_enabled() and count > 0):
                logits = next(exits, None)
            if logits is None:
                raise ChangedOutputs(f"the network computed {len(found)} exits, it has {self.n_exits}")
            found.append(logits if count else logits.detach())
        return torch.stack(found)

    def deployed(self, x: Tensor, policy: Policy) -> Tensor:
        """Return the prediction ``(B, classes)`` of ``policy``, as logits; gradients flow through its exits alone.

        Exits behind the last that an input of the batch takes are not computed.
        """
        policy.check(self.n_exits)
        seen: list[Tensor] = []
        found, gone = x, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for k, logits in enumerate(self.exits(x)):
            seen.append(logits)
            so_far = torch.stack(seen)
            predicted = policy.predicted(so_far)
            found = torch.where(gone[:, None], found, predicted) if k else predicted
            if k == self.n_exits - 1:
                break
            gone = gone | policy.leaves(so_far)
            if gone.all():
                break
        return found

    def search_model(self) -> EarlyExitNet:
        """Return the network that attacks may search on: the same function up to rounding, computed faster where possible."""
        return self

    def placed(self, device: torch.device) -> Self:
        """Return this network on ``device``, in the memory layout that is fastest there."""
        return self.to(device)

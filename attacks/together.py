"""Ascents on single exits as one batch: on few images a GPU is idle, one exit after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exitbench.attacks.base import Attack
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import Loss, Objective, Only, Reduction
from exitbench.attacks.pgd import PGD
from exitbench.models.early_exit import EarlyExitNet


@dataclass(frozen=True, eq=False)
class Each(Reduction):
    """The loss of an exit of each sample's own.

    Attributes:
        exits: The exits ``(B,)``, 0-based.
        last: The last of them.
    """

    exits: Tensor
    last: int

    @property
    def upto(self) -> int:
        return self.last

    def __call__(self, losses: Tensor) -> Tensor:
        return losses.gather(0, self.exits[None])[0]


def on_one_exit(attack: Attack) -> PGD | None:
    """Return an attack that ascends an untargeted loss of one exit by PGD and builds on no other; None for any other."""
    if type(attack) is not PGD or attack.children or not isinstance(attack.objective.loss, Loss):
        return None
    return attack if isinstance(attack.objective.over, Only) else None


def alike(attack: Attack, others: Sequence[Attack]) -> list[PGD]:
    """Return those of ``others`` that differ from ``attack`` in the exit alone, it included if it is among them."""
    one = on_one_exit(attack)
    if one is None:
        return []
    on_exits = [found for other in others if (found := on_one_exit(other)) is not None]
    return [
        other
        for other in on_exits
        if other.objective.loss == one.objective.loss and replace(other, objective=one.objective) == one
    ]


def generate_together(attacks: Sequence[PGD], model: EarlyExitNet, x: Tensor, y: Tensor, noise: Noise) -> list[Tensor]:
    """Return the candidates of attacks that are alike, each with the draws that it makes alone.

    Args:
        attacks: The attacks (``alike``).
        model: The search model, in evaluation mode.
        x: Clean images ``(B, C, H, W)`` in [0, 1].
        y: Labels ``(B,)``.
        noise: The random numbers of these samples.
    """
    exits = [attack.objective.over.exit - 1 for attack in attacks if isinstance(attack.objective.over, Only)]
    of_sample = torch.tensor(exits).repeat_interleave(len(x)).to(x.device)
    whole = replace(attacks[0], objective=Objective(attacks[0].objective.loss, Each(of_sample, max(exits))))
    rows = torch.arange(len(x), device=x.device).repeat(len(exits))
    found = whole.generate(model, x[rows], y[rows], noise=noise.of(rows), candidates=())
    return [part.clone() for part in torch.split(found, len(x))]

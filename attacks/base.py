"""What an attack is: a frozen description that proposes one candidate per sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar

from torch import Tensor

from exitbench.attacks.noise import Noise
from exitbench.attacks.registry import Goal
from exitbench.models.early_exit import EarlyExitNet


@dataclass(frozen=True)
class Attack(ABC):
    """An attack on a multi-exit network, as a value: equality, ``repr``, JSON and cache key are one object.

    Subclasses implement ``generate``. An attack that builds on others names them in ``children``;
    whoever runs it may hand in their candidates instead of computing them again.
    """

    version: ClassVar[int] = 1

    goal: ClassVar[Goal] = "error"

    gathers: ClassVar[bool] = False
    """Whether it gains by being handed several batches at once even on a CPU, as it goes on with the few samples left of each."""

    @property
    def children(self) -> tuple[Attack, ...]:
        """Attacks whose candidates this one starts from or selects among."""
        return ()

    @property
    def bounded(self) -> bool:
        """Whether candidates are bound to the threat model's ball; if not, those outside it count for nothing but themselves."""
        return True

    @property
    def least_classes(self) -> int:
        """Fewest classes that a network must have for it: as many as its losses, and the attacks that it builds on, need."""
        return max((least_classes_of(getattr(self, field.name)) for field in fields(self)), default=1)

    @property
    def summary(self) -> str:
        """How it is run, in a few words, as tables show it; its numbers and words by name where a subclass does not say."""
        return summary_of({field.name: getattr(self, field.name) for field in fields(self)})

    @property
    def expected_gradients(self) -> float:
        """Rough gradients per sample of this attack on its own, to divide a progress bar by."""
        return 0.3

    @property
    def implementation(self) -> str | None:
        """Package and version of an attack that is another package's; None for our own."""
        return None

    @abstractmethod
    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        """One candidate per sample, given the children's candidates in the order of ``children``."""

    def __call__(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise) -> Tensor:
        """Run the children, then this attack.

        Args:
            model: in evaluation mode.
            x: clean images ``(B, C, H, W)`` in [0, 1].
            y: labels ``(B,)``.
            noise: the randomness of these samples.

        Returns:
            Candidates of the shape of ``x``, judged by nobody.
        """
        candidates = [child(model, x, y, noise=noise) for child in self.children]
        return self.generate(model, x.clone(), y.clone(), noise=noise, candidates=candidates)


def least_classes_of(value: object) -> int:
    """Return the fewest classes that a network must have for a loss, an attack, or anything that contains some."""
    if isinstance(value, tuple):
        return max(map(least_classes_of, value), default=1)
    if isinstance(stated := getattr(value, "least_classes", None), int):
        return stated
    if not is_dataclass(value):
        return 1
    return max((least_classes_of(getattr(value, field.name)) for field in fields(value)), default=1)


def summary_of(values: Mapping[str, object]) -> str:
    """The numbers and words among ``values``, by name: ``restarts=1, steps=20``."""
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()) if isinstance(value, (bool, int, float, str)))

"""The base class of attacks: a frozen description that generates one candidate per sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar

from torch import Tensor

from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import Penalty, ThreatModel
from exitbench.attacks.registry import Goal
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.on_grid import on_grid


@dataclass(frozen=True)
class Attack(ABC):
    """An attack on a multi-exit network, as a frozen data class: its fields define equality, ``repr``, JSON and cache key.

    Subclasses implement ``generate``. An attack that builds on others lists them in ``children``; the caller may pass their
    candidates instead of computing them again.
    """

    version: ClassVar[int] = 1

    goal: ClassVar[Goal] = "error"

    gathers: ClassVar[bool] = False
    """Whether the attack is faster on several batches at once even on a CPU, because few samples are left of each."""

    @property
    def children(self) -> tuple[Attack, ...]:
        """Attacks whose candidates this one starts from or selects among."""
        return ()

    @property
    def bounded(self) -> bool:
        """Whether candidates must lie in the threat model's ball; if not, those outside it do not count in the worst case."""
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
        """Rough number of gradients per sample of this attack alone, for progress bars."""
        return 0.3

    @property
    def implementation(self) -> str | None:
        """Package and version of an attack from another package; None for attacks of exitbench."""
        return None

    @property
    def again(self) -> Attack:
        """The attack to run on the network itself where only the faster copy searched first is broken; at least as strong."""
        return self

    @property
    def thorough(self) -> Attack:
        """The attack as a worst case runs it, where a sample counts that breaks late; at least as strong."""
        return self

    @abstractmethod
    def generate(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise, candidates: Sequence[Tensor]) -> Tensor:
        """Generate one candidate per sample.

        Args:
            model: The search model, in evaluation mode.
            x: Clean images ``(B, C, H, W)`` in [0, 1].
            y: Labels ``(B,)``.
            noise: The random numbers of these samples.
            candidates: The candidates of ``children``, in their order.

        Returns:
            Candidates of the shape of ``x``.
        """

    def __call__(self, model: EarlyExitNet, x: Tensor, y: Tensor, *, noise: Noise) -> Tensor:
        """Run the children, then this attack; in a threat model with a grid, on a network that rounds, to images of the grid.

        Args:
            model: The search model, in evaluation mode.
            x: Clean images ``(B, C, H, W)`` in [0, 1].
            y: Labels ``(B,)``.
            noise: The random numbers of these samples.
        """
        region = region_of(self)
        searched = model if region is None else on_grid(model, region.grid)
        candidates = [child(searched, x, y, noise=noise) for child in self.children]
        found = self.generate(searched, x.clone(), y.clone(), noise=noise, candidates=candidates)
        return found if region is None else region.onto_grid(found, x)


def region_of(value: object) -> ThreatModel | Penalty | None:
    """Return the first region in an attack, or in the attacks that it builds on; None where there is none."""
    if isinstance(value, ThreatModel | Penalty):
        return value
    inside = value if isinstance(value, tuple) else ()
    if is_dataclass(value) and not isinstance(value, type):
        inside = tuple(getattr(value, field.name) for field in fields(value))
    return next((found for each in inside if (found := region_of(each)) is not None), None)


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

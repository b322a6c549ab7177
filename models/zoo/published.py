"""What ``--model robustbench:NAME`` and ``--model pyautoattack:NAME`` mean: networks that a package publishes, with weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from exitbench.models.safe_name import safe_name

SOURCES = ("robustbench", "pyautoattack")
"""What may stand before the colon. A factory of these packages themselves is named by a module in them."""


@dataclass(frozen=True)
class WithWeights:
    """A published network with its weights.

    Attributes:
        net: in evaluation mode.
        source: where both come from, digests and versions included.
    """

    net: nn.Module
    source: str


@dataclass(frozen=True)
class Published(ABC):
    """A network that a package publishes: one exit, images in [0, 1].

    Attributes:
        reference: as named on the command line, in its shortest form.
        dataset: that it was trained on.
        norm: of the ball it was trained for; None for a network without a defence.
        training: which weights, in a word.
    """

    reference: str
    dataset: str
    norm: str | None
    training: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images it takes."""
        return (3, 224, 224) if self.dataset == "imagenet" else (3, 32, 32)

    @property
    def name(self) -> str:
        """What reports call it, fit for file names: the reference with a dot for colon and slashes."""
        return published_name(self.reference)

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with fresh weights.

        Raises:
            ForeignModelError: its package is missing or cannot make it.
        """

    @abstractmethod
    def load(self) -> WithWeights:
        """The network with the published weights.

        Raises:
            ForeignModelError, WeightsError: package or weights are missing, or are not what they should be.
        """


def is_published(model: str) -> bool:
    """Whether ``model`` names a published network rather than a factory or a registered one."""
    source, colon, _ = model.partition(":")
    return bool(colon) and source in SOURCES


def published_name(reference: str) -> str:
    """What reports call the network that ``reference`` names; nothing is imported."""
    source, _, rest = reference.partition(":")
    return safe_name(f"{source}.{shortest(rest).replace('/', '.')}")


def shortest(name: str) -> str:
    """The name of an entry without what it would mean anyway: RobustBench's CIFAR-10, Linf."""
    return name.removeprefix("cifar10/").removeprefix("Linf/")


def published_reference(name: str) -> str | None:
    """The reference of the network that reports call ``name``; None for a network of another kind."""
    source, dot, rest = name.partition(".")
    return f"{source}:{rest.replace('.', '/')}" if dot and rest and source in SOURCES else None

"""Networks that a package publishes with weights, given as ``--model robustbench:NAME`` or ``--model pyautoattack:NAME``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from exitbench.models.reference import without_call
from exitbench.models.safe_name import safe_name
from exitbench.models.zoo.sources import SOURCES


@dataclass(frozen=True)
class WithWeights:
    """A published network with its weights.

    Attributes:
        net: The network, in evaluation mode.
        source: Where both come from, with digests and versions.
    """

    net: nn.Module
    source: str


@dataclass(frozen=True)
class Published(ABC):
    """A network that a package publishes; it has one exit and takes images in [0, 1].

    Attributes:
        reference: Its name on the command line, in the shortest form.
        dataset: Dataset that it was trained on.
        norm: Norm of the ball that it was trained for; None for a network without a defence.
        training: Short name of the training.
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
        """The name in reports, fit for file names: the reference with dots for the colon and the slashes."""
        return published_name(self.reference)

    @abstractmethod
    def build(self) -> nn.Module:
        """Build the network with fresh weights.

        Raises:
            ForeignModelError: If its package is missing or cannot build it.
        """

    @abstractmethod
    def load(self) -> WithWeights:
        """Build the network and load the published weights.

        Raises:
            ForeignModelError: If its package is missing or cannot build it.
            WeightsError: If the weights are missing or are not the published ones.
        """


def is_published(model: str) -> bool:
    """Return whether ``model`` names a published network rather than a factory or a registered one.

    To use a factory in one of these packages, name a module in the package.
    """
    source, colon, _ = model.partition(":")
    return bool(colon) and source in SOURCES


def published_name(reference: str) -> str:
    """Return the name, in reports, of the network given as ``reference``; nothing is imported."""
    called, arguments = without_call(reference)
    source, _, rest = called.partition(":")
    return safe_name(f"{source}.{shortest(rest).replace('/', '.')}{arguments}")


def shortest(name: str) -> str:
    """Return the name of an entry without the defaults of RobustBench, CIFAR-10 and Linf."""
    return name.removeprefix("cifar10/").removeprefix("Linf/")


def published_reference(name: str) -> str | None:
    """Return the reference of the network that reports call ``name``, or None if none is known by it."""
    source, dot, rest = name.partition(".")
    known = dot and rest and source in SOURCES and SOURCES[source].restorable
    return f"{source}:{rest.replace('.', '/')}" if known else None

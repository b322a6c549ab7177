"""Loads the network given as ``--model``: a registered architecture, a published network, or the user's own factory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from exitbench.data.cards import dataset_card
from exitbench.errors import UserError, as_user_errors
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.error_text import first_line
from exitbench.models.factory import Factory, find_factory, is_reference
from exitbench.models.fingerprint import Fingerprint, fingerprint
from exitbench.models.foreign import ForeignModelError, ForeignNet
from exitbench.models.identity import source_digest, tensors_digest
from exitbench.models.network_identity import network_digest, structure_digest
from exitbench.models.plain_net import UNCOMPILED, initialise, lazy_tensors, without_compilation
from exitbench.models.registry import ModelCard, model_card
from exitbench.models.safe_name import safe_name
from exitbench.models.spec import digest as canonical_digest
from exitbench.models.unused import unused_copy
from exitbench.models.user_code import contained
from exitbench.models.weights import find_weights, load_weights
from exitbench.models.zoo.find import find_published
from exitbench.models.zoo.published import Published, is_published, published_reference
from exitbench.models.zoo.timm_model import TimmModel

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Loaded:
    """A network with its weights.

    Attributes:
        model: The network in evaluation mode, with frozen parameters.
        training: Short name of the weights.
        weights: Digest that identifies the weights.
        source: Where they come from.
        policy: The exit policy of the weights, and the digest of its calibration; None without one.
        note: what must be said of the network; None if nothing.
        fingerprint: what it computes on fixed noise; None for a registered network, whose weights determine it.
        unused: A copy from before the first image; None for a registered network, and where there can be none.
    """

    model: EarlyExitNet
    training: str
    weights: str
    source: str
    policy: tuple[str, str | None] | None = None
    note: str | None = None
    fingerprint: Fingerprint | None = None
    unused: EarlyExitNet | None = None


class Network(ABC):
    """A network that can be loaded.

    Attributes:
        name: Name in reports.
        card: Card of a registered architecture; None for others.
        dataset: Dataset that it is for, if known.
        norm: Norm of the ball that it was trained for, if known.
        takes_normalisation: Whether a normalisation may be put in front of it; others hold their own.
    """

    name: str
    card: ModelCard | None = None
    dataset: str | None = None
    norm: str | None = None
    takes_normalisation: ClassVar[bool] = False

    @abstractmethod
    def input_shape(self, dataset: str) -> Shape:
        """Return the shape ``(C, H, W)`` of the images that it takes from ``dataset``."""

    @abstractmethod
    def build(self, shape: Shape) -> EarlyExitNet:
        """Build the network for images of ``shape``, before weights are loaded."""

    @abstractmethod
    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        """Load the network with weights: those in the file ``weights``, or those known for ``dataset`` (and ``training``).

        Raises:
            WeightsError, ForeignModelError, UserError: If there are no weights, or weights or network cannot be used.
        """


def named_network(model: str) -> Network:
    """Return the network given as ``model``; the code of a factory is executed.

    Raises:
        UnknownName: If there is no such registered or published model.
        ForeignModelError: If there is no such factory, it fails, or the package that publishes the model is missing.
    """
    if is_published(model):
        found = find_published(model)
        return PublishedNetwork(found) if isinstance(found, Published) else _of_timm(found)
    return FactoryNetwork(find_factory(model)) if is_reference(model) else RegisteredNetwork(model_card(model))


def _of_timm(model: TimmModel) -> Network:
    """Return a network of timm's, with the normalisation that timm says in front."""
    from exitbench.target.normalised import NormalisedNetwork
    from exitbench.target.timm_network import TimmNetwork

    return NormalisedNetwork(TimmNetwork(model), model.normalisation, averaged=True)


def own_network(model: str | None) -> Network | None:
    """Return the network of a factory, whose code is executed, or a published network, or None for any other name.

    Raises:
        UserError: If there is no such network, or it fails.
    """
    if model is None or not (is_reference(model) or is_published(model)):
        return None
    with as_user_errors():
        return named_network(model)


def stored_network(name: str) -> Network:
    """Return the registered or published network that reports call ``name``; no user's code is executed.

    Raises:
        UnknownName, ForeignModelError: If there is none.
    """
    reference = published_reference(name)
    return RegisteredNetwork(model_card(name)) if reference is None else named_network(reference)


def declared_shape(net: nn.Module, where: str) -> Shape | None:
    """Return the shape ``(C, H, W)`` that a network declares as ``input_shape``; None where it declares none.

    Raises:
        ForeignModelError: it is no such shape; ``where`` names the network.
    """
    declared = getattr(net, "input_shape", None)
    if declared is None:
        return None
    try:
        channels, height, width = (int(side) for side in declared)
    except (TypeError, ValueError):
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise ForeignModelError(f"{where}: input_shape is {declared!r}; it must be (channels, height, width)")
    return channels, height, width


class RegisteredNetwork(Network):
    """A registered architecture."""

    def __init__(self, card: ModelCard) -> None:
        self.name, self.card, self.dataset = card.name, card, card.dataset

    def input_shape(self, dataset: str) -> Shape:
        return self._card.input_shape

    def build(self, shape: Shape) -> EarlyExitNet:
        return self._card.build().eval()

    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        model = self.build(shape)
        if weights is not None:
            found = Loaded(model, safe_name(weights.stem), load_weights(model, weights), f"file {weights.name}")
        else:
            card, path = find_weights(self.name, dataset, training)
            policy = None if card.policy is None else (card.policy, card.calibration)
            found = Loaded(model, card.training, load_weights(model, path, card.sha256), card.source, policy)
        model.requires_grad_(False)
        return found

    @property
    def _card(self) -> ModelCard:
        assert self.card is not None  # noqa: S101 - for the type checker: set above
        return self.card


class PublishedNetwork(Network):
    """A network that a package publishes with its weights; it has one exit."""

    def __init__(self, published: Published) -> None:
        self.published = published
        self.name, self.dataset, self.norm = published.name, published.dataset, published.norm

    def input_shape(self, dataset: str) -> Shape:
        return self.published.input_shape

    def build(self, shape: Shape) -> EarlyExitNet:
        with contained():
            net = self.published.build()
        return ForeignNet(net, shape)

    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        published = self.published
        if weights is not None:
            net = published.build()
            label, source = safe_name(weights.stem), f"file {weights.name}, SHA-256 {load_weights(net, weights)}"
        elif training in (None, published.training):
            with contained():
                found = published.load()
            net, label, source = found.net, published.training, found.source
        else:
            raise UserError(f"--training {training}: the weights of {published.reference} are called {published.training}")
        digest = canonical_digest({"network": published.reference, "tensors": tensors_digest(net)})
        model = ForeignNet(net, shape).requires_grad_(False)
        unused = unused_copy(model)
        return Loaded(model, label, digest, source, fingerprint=fingerprint(model, shape), unused=unused)


class FactoryNetwork(Network):
    """A network that the user's own function returns.

    An ``EarlyExitNet`` is used as it is; any other module is wrapped by ``exitbench.models.foreign``. A network that takes images
    of one shape only may declare it as ``input_shape``, ``(C, H, W)``.
    """

    takes_normalisation = True

    def __init__(self, factory: Factory) -> None:
        self.factory = factory
        self.name = factory.name

    @cached_property
    def _made(self) -> tuple[nn.Module, bool, str | None]:
        """The network, whether it was compiled, and the digest of its structure, taken before its first forward.

        A network with lazy layers has no structure before it is initialised, which takes one.
        """
        net, was_compiled = without_compilation(self.factory.build())
        return net, was_compiled, None if lazy_tensors(net) else structure_digest(net, self.factory)

    @property
    def _net(self) -> nn.Module:
        return self._made[0]

    def input_shape(self, dataset: str) -> Shape:
        return declared_shape(self._net, self.factory.where) or dataset_card(dataset).input_shape

    def build(self, shape: Shape) -> EarlyExitNet:
        net = self._net.eval()
        with _named(self.factory.where):
            initialise(net, shape)
            return tried(net, shape) if isinstance(net, EarlyExitNet) else ForeignNet(net, shape)

    def load(self, dataset: str, shape: Shape, training: str | None, weights: Path | None) -> Loaded:
        if training is not None:
            raise UserError(f"--training {training}: registered weights are of registered models; give a file with --weights")
        net, where, module = self._net, self.factory.where, self.factory.module
        with _named(where):
            initialise(net, shape)
        source = f"{self.factory.called}, source SHA-256 {source_digest(net, module)}"
        if weights is not None:
            source += f"; weights file {weights.name}, SHA-256 {load_weights(net, weights)}"
        digest = network_digest(self._made[2] or structure_digest(net, self.factory), net)
        model = self.build(shape).requires_grad_(False)
        unused = unused_copy(model)
        label = "factory" if weights is None else safe_name(weights.stem)
        note = note_on(model, was_compiled=self._made[1])
        return Loaded(model, label, digest, source, note=note, fingerprint=fingerprint(model, shape), unused=unused)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Put the name of the factory before what is wrong with its network."""
    try:
        yield
    except ForeignModelError as error:
        raise ForeignModelError(f"{where}: {error}") from error


def note_on(model: EarlyExitNet, *, was_compiled: bool) -> str | None:
    """Return what must be said of a user's network: that it is not run as it was given, or computes in half precision."""
    precision = model.note if isinstance(model, ForeignNet) else None
    return "; ".join(filter(None, (UNCOMPILED if was_compiled else None, precision))) or None


@torch.no_grad()
def tried(model: EarlyExitNet, shape: Shape) -> EarlyExitNet:
    """Run an ``EarlyExitNet`` and its search model once, and return it."""
    x = torch.zeros(2, *shape)
    try:
        model(x)
        model.search_model()(x)
    except Exception as error:
        raise ForeignModelError(
            f"a forward of 2 images of {'x'.join(map(str, shape))} failed ({first_line(error)}); where `view` is the reason, use "
            "flatten or reshape: stages are given tensors in other memory layouts"
        ) from error
    return model

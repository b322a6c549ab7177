"""The model registry: a decorator, a card for each model, and lookups that suggest near misses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from exitbench.models.errors import NameTaken, UnknownName
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.papers import Paper
from exitbench.models.plugins import Plugin, plugins
from exitbench.models.weights import WeightsCard, known_weights

_WITHOUT_DOCSTRINGS = 2
"""Python's level of optimisation (-OO) at which functions have no docstrings."""

GROUP = "exitbench.models"
"""Entry points: modules that register models when they are imported, or a registered function in one."""


@dataclass(frozen=True)
class ModelCard:
    """The description of a registered architecture.

    Attributes:
        name: Name on the command line, which is that of the registered function.
        summary: Description of one line, for listings.
        dataset: Dataset that the paper trains it on.
        input_shape: Shape ``(C, H, W)`` of an image.
        paper: Source of the architecture.
        licence: Licence of this implementation.
        build: Builds the network with fresh weights.
        title: Name for readers, such as ``RDI-ResNet-38``; empty where none was given.
        family: Family of architectures, such as ``ResNet``; empty where none was given.
        reference: The paper in its parts; None where ``paper`` is all that was given.
    """

    name: str
    summary: str
    dataset: str
    input_shape: tuple[int, int, int]
    paper: str
    licence: str
    build: Callable[[], MultiExitNet]
    title: str = ""
    family: str = ""
    reference: Paper | None = None

    def weights(self) -> list[WeightsCard]:
        """Return the cards of all weights known for this model, sorted by dataset and training."""
        return [card for card, _ in known_weights(self.name)]


_cards: dict[str, ModelCard] = {}


def register_model(
    *,
    dataset: str,
    input_shape: tuple[int, int, int],
    paper: str | Paper,
    licence: str = "MIT",
    title: str = "",
    family: str = "",
) -> Callable[[Callable[[], MultiExitNet]], Callable[[], MultiExitNet]]:
    """Register the decorated builder under its function name.

    Args:
        dataset: Name of the dataset that it is made for.
        input_shape: Channels, height and width of an image.
        paper: Where the architecture is from.
        licence: Licence of the code.
        title: Readable name for reports; without one the registered name is shown.
        family: Family of architectures; without one none is shown.

    Raises:
        NameTaken: If the name is taken; the message names both modules.
        ValueError: If the name is not an identifier, or the builder has no docstring for listings.
    """

    def decorate(build: Callable[[], MultiExitNet]) -> Callable[[], MultiExitNet]:
        name = build.__name__
        if name in _cards:
            raise NameTaken(f"model {name!r} of {build.__module__} is already registered by {_cards[name].build.__module__}")
        if not name.isidentifier():
            raise ValueError(f"model {name!r} cannot be named on a command line; register a function with a plain name")
        if not build.__doc__ and sys.flags.optimize < _WITHOUT_DOCSTRINGS:
            raise ValueError(f"model {name!r} needs a one-line docstring")
        summary = (build.__doc__ or "no description: Python runs without docstrings (-OO)").strip().splitlines()[0]
        reference = paper if isinstance(paper, Paper) else None
        _cards[name] = ModelCard(
            name, summary, dataset, input_shape, str(paper), licence, build, title=title, family=family, reference=reference
        )
        return build

    return decorate


register = register_model
"""The name of ``register_model`` in 0.1."""


def model_names() -> list[str]:
    """All registered names, in the order of registration."""
    _import_definitions()
    return list(_cards)


def model_card(name: str) -> ModelCard:
    """The card of a registered model.

    Raises:
        UnknownName: with suggestions.
    """
    _import_definitions()
    if name not in _cards:
        raise UnknownName("model", name, _cards)
    return _cards[name]


def _import_definitions() -> None:
    import exitbench.models.catalog  # noqa: F401, PLC0415 - registers ours

    plugins(GROUP, _fault)


def _fault(plugin: Plugin) -> str | None:
    if isinstance(plugin.value, ModuleType) or any(card.build is plugin.value for card in _cards.values()):
        return None
    return "it names no module and no function registered with exitbench.models.registry.register_model"

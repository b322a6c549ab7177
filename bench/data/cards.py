"""The datasets by name, with the threat models that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from exitbench.models.errors import NameTaken, UnknownName
from exitbench.models.plugins import Plugin, by_name, plugins
from exitbench.models.safe_name import safe_name

if TYPE_CHECKING:
    from exitbench.attacks.regions import Norm
    from exitbench.data.split import Split

GROUP = "exitbench.datasets"
"""Entry points: each a ``Dataset``."""


@dataclass(frozen=True)
class DatasetCard:
    """What is known of a dataset without reading it.

    Attributes:
        name: as typed on the command line.
        summary: one line for listings.
        input_shape: ``(C, H, W)`` of its images.
        n_test: size of the test split.
        eps: the threat model's radius by norm.
        steps: PGD steps.
        step_ratio: PGD step size as a fraction of eps.
        resizable: whether its images can be had in any larger shape a model asks for.
    """

    name: str
    summary: str
    input_shape: tuple[int, int, int]
    n_test: int
    eps: Mapping[Norm, float]
    steps: int
    step_ratio: float
    resizable: bool = False

    def fits(self, shape: tuple[int, int, int]) -> bool:
        """Whether a model that takes images of ``shape`` can be given these."""
        return self.resizable or shape == self.input_shape


class Loader(Protocol):
    """Reads one split of a dataset."""

    def __call__(self, split: str, input_shape: tuple[int, int, int], root: Path, *, download: bool) -> Split:
        """``train``, ``calibration`` (held out of train) or ``test``, as images of ``input_shape``.

        Looked for in the data directory ``root``; what is missing may be fetched if ``download``, else
        ``exitbench.data.download.DataUnavailable`` is raised.
        """


@dataclass(frozen=True)
class Dataset:
    """A dataset that an installed package adds: its card, and how it is read."""

    card: DatasetCard
    load: Loader


# No threat model of digits is established. 0.23, a little beyond what the shipped weights are trained at (0.2), was picked where
# attacks differ most on the test images themselves: a demonstration, not a benchmark.
# CIFAR-10 and MNIST as in RobustBench and "Triple Wins": 20 steps of 2/255, 40 steps of 0.01.
_CARDS = {
    card.name: card
    for card in (
        DatasetCard(
            "cifar10", "CIFAR-10, 10 classes of 32x32 colour images", (3, 32, 32), 10_000, {"Linf": 8 / 255, "L2": 0.5}, 20, 1 / 4
        ),
        DatasetCard("mnist", "MNIST, handwritten digits of 28x28", (1, 28, 28), 10_000, {"Linf": 0.3, "L2": 2.0}, 40, 1 / 30),
        DatasetCard(
            "digits",
            "scikit-learn's 8x8 digits, enlarged; needs no download",
            (1, 8, 8),
            500,
            {"Linf": 0.23, "L2": 2.0},
            20,
            1 / 4,
            resizable=True,
        ),
    )
}


_registered: dict[str, Dataset] = {}


def register_dataset(dataset: Dataset, *, replace: bool = False) -> Dataset:
    """Register a dataset under its card's name, for as long as the process lives.

    Args:
        dataset: its card and loader.
        replace: whether one registered before under this name gives way.

    Raises:
        NameTaken: the name is.
    """
    name = dataset.card.name
    if name in _CARDS or (name in _registered and not replace):
        raise NameTaken(f"dataset {name!r} is registered already")
    _registered[name] = dataset
    return dataset


def registered(name: str) -> Dataset | None:
    """Return the dataset that was registered in this process under ``name``; None without one."""
    return _registered.get(name)


def dataset_names() -> list[str]:
    """All known datasets, those of installed packages last."""
    return [*_CARDS, *added_datasets()]


def dataset_card(name: str) -> DatasetCard:
    """The card of a dataset.

    Raises:
        UnknownName: with suggestions.
        NameTaken: two datasets of one name.
    """
    added = added_datasets()
    if name in _CARDS:
        return _CARDS[name]
    if name in _registered:
        return _registered[name].card
    if name not in added:
        raise UnknownName("dataset", name, [*_CARDS, *added])
    card: DatasetCard = added[name].value.card
    return card


def added_datasets() -> dict[str, Plugin]:
    """The datasets of installed packages by name, each the value of its plugin.

    Raises:
        NameTaken: two datasets of one name.
    """
    return by_name("dataset", ((plugin.value.card.name, plugin) for plugin in plugins(GROUP, _fault)), _CARDS)


def _fault(plugin: Plugin) -> str | None:
    value = plugin.value
    if not isinstance(value, Dataset) or not isinstance(value.card, DatasetCard):
        return f"it is {type(value).__name__}, not a exitbench.data.cards.Dataset"
    card = value.card
    if card.name != safe_name(card.name):
        return f"a dataset cannot be called {card.name!r}: letters, digits, '_', '.' and '-' alone"
    if any(not card.eps.get(norm, 0) > 0 for norm in ("Linf", "L2")):
        return f"its card needs a radius for Linf and for L2, it has {dict(card.eps)}"
    return None

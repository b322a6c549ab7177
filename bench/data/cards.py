"""The dataset cards, with the usual threat model of each dataset."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from exitbench.data.download import DataUnavailable
from exitbench.models.errors import NameTaken, UnknownName
from exitbench.models.own_code import is_own
from exitbench.models.plugins import Plugin, by_name, plugins
from exitbench.models.safe_name import safe_name

if TYPE_CHECKING:
    from exitbench.attacks.regions import Norm
    from exitbench.data.split import Split

GROUP = "exitbench.datasets"
"""Entry points: modules that register datasets when they are imported, or a ``Dataset``."""


@dataclass(frozen=True)
class DatasetCard:
    """The description of a dataset.

    Attributes:
        name: Name on the command line.
        summary: Description of one line, for listings.
        input_shape: Shape ``(C, H, W)`` of an image.
        n_test: Size of the test split.
        eps: Usual radius of the threat model, by norm.
        steps: Number of PGD steps.
        step_ratio: PGD step size as a share of ``eps``.
        resizable: Whether images can be enlarged to any shape that a model takes.
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
        """Return whether a model that takes images of ``shape`` can be evaluated on this dataset."""
        return self.resizable or shape == self.input_shape


class Loader(Protocol):
    """A function that reads a split of a dataset."""

    def __call__(self, split: str, input_shape: tuple[int, int, int], root: Path, *, download: bool) -> Split:
        """Read ``train``, ``calibration`` (held out of train) or ``test``, as images of ``input_shape``.

        The data are read from the data directory ``root``, and downloaded if they are missing and ``download`` is true.

        Raises:
            exitbench.data.download.DataUnavailable: If the data are missing and cannot be downloaded.
        """


@dataclass(frozen=True)
class Dataset:
    """A dataset: its card, and how it is read.

    Attributes:
        card: what is known without reading it.
        load: reads one split.
        origin: the installed package or module that it is from; None for ours.
        listed: whether listings and messages name it; what the user handed over is not.
        calibrated: whether it has held-out training images.
        reference: how what was handed over is named on the command line, valid in any folder; None where it is not.
    """

    card: DatasetCard
    load: Loader
    origin: str | None = None
    listed: bool = True
    calibrated: bool = True
    reference: str | None = None


_OF_CONTENT = re.compile(r"-[0-9a-f]{12}$")
"""How the names of datasets end that are known by their content."""

_registered: dict[str, Dataset] = {}


def register_dataset(dataset: Dataset, *, replace: bool = False) -> Dataset:
    """Register a dataset under its card's name.

    Args:
        dataset: its card and loader.
        replace: whether one registered before under this name gives way, unless it is ours.

    Raises:
        NameTaken: for a name that is taken; both are named.
        ValueError: for a card that cannot be used.
    """
    name, module = dataset.card.name, dataset.load.__module__
    if wrong := _wrong(dataset.card):
        raise ValueError(wrong)
    if not is_own(module):
        import exitbench.data.catalog  # noqa: F401 - ours come first
    before = _registered.get(name)
    if before is not None and not (replace and before.origin is not None):
        raise NameTaken(f"dataset {name!r} of {module} is already registered by {before.load.__module__}")
    if dataset.origin is None and not is_own(module):
        dataset = dataclasses.replace(dataset, origin=module)
    _registered[name] = dataset
    return dataset


def registered() -> Mapping[str, Dataset]:
    """Return all datasets by name, in the order of registration, those of installed packages last.

    Raises:
        NameTaken: two datasets of one name.
    """
    import exitbench.data.catalog  # noqa: F401 - registers ours

    found = [plugin for plugin in plugins(GROUP, _fault) if not _registers_itself(plugin)]
    added = by_name("dataset", ((plugin.value.card.name, plugin) for plugin in found), _registered)
    return {**_registered, **{name: dataclasses.replace(plugin.value, origin=plugin.origin) for name, plugin in added.items()}}


def dataset_names() -> list[str]:
    """Return all known datasets, those of installed packages last."""
    return [name for name, dataset in registered().items() if dataset.listed]


def find_dataset(name: str) -> Dataset:
    """Return a dataset by its name.

    Raises:
        UnknownName: with suggestions.
        DataUnavailable: it was of somebody's own images, and nobody said in this process where they are.
        NameTaken: two datasets of one name.
    """
    known = registered()
    if name not in known and _OF_CONTENT.search(name):
        raise DataUnavailable(
            f"{name} are somebody's own images, known by their content; say where they are with --dataset, as when they were "
            "evaluated: imagefolder:PATH, hf:PATH, path/to/file.py:function"
        )
    if name not in known:
        raise UnknownName("dataset", name, dataset_names())
    return known[name]


def dataset_card(name: str) -> DatasetCard:
    """Return the card of a dataset; see ``find_dataset``."""
    return find_dataset(name).card


def _registers_itself(plugin: Plugin) -> bool:
    loaders = [each.load for each in _registered.values()]
    return isinstance(plugin.value, ModuleType) or getattr(plugin.value, "load", None) in loaders


def _fault(plugin: Plugin) -> str | None:
    value = plugin.value
    if _registers_itself(plugin):
        return None
    if not isinstance(value, Dataset) or not isinstance(value.card, DatasetCard):
        return f"it is {type(value).__name__}, not a exitbench.data.cards.Dataset"
    return _wrong(value.card)


def _wrong(card: DatasetCard) -> str | None:
    if card.name != safe_name(card.name):
        return f"a dataset cannot be called {card.name!r}: letters, digits, '_', '.' and '-' alone"
    if any(not card.eps.get(norm, 0) > 0 for norm in ("Linf", "L2")):
        return f"its card needs a radius for Linf and for L2, it has {dict(card.eps)}"
    return None

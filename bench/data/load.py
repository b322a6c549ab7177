"""The one way to get a split: by dataset name, from the data directory or a checked download."""

from __future__ import annotations

from pathlib import Path

from exitbench.data.cards import added_datasets, dataset_card, registered
from exitbench.data.cifar10 import load_cifar10
from exitbench.data.digits import load_digits
from exitbench.data.download import DataUnavailable
from exitbench.data.mnist import load_mnist
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.error_text import first_line
from exitbench.models.plugins import Plugin


def load_split(dataset: str, split: str, input_shape: tuple[int, int, int], root: Path, *, download: bool = True) -> Split:
    """A split of ``dataset`` for a model that takes ``input_shape``.

    Args:
        dataset: ``cifar10``, ``mnist``, ``digits``, or an installed package's.
        split: ``train``, ``calibration`` (held out of train) or ``test``.
        input_shape: ``(C, H, W)``.
        root: the data directory.
        download: whether originals that are missing may be fetched.

    Raises:
        UserError: the data does not fit the model or is damaged.
        DataUnavailable: it is neither in ``root`` nor to be had.
        UnknownName: no such dataset.
    """
    card, added = dataset_card(dataset), added_datasets()
    if not card.fits(input_shape):
        raise UserError(f"{dataset} has images of {_by(card.input_shape)}, the model takes {_by(input_shape)}")
    if (here := registered(dataset)) is not None:
        return here.load(split, input_shape, root, download=download)
    if dataset in added:
        return _added_split(added[dataset], split, input_shape, root, download)
    if dataset == "cifar10":
        return load_cifar10(split, root, download=download)
    if dataset == "mnist":
        return load_mnist(split, root, download=download)
    return load_digits(split, input_shape)


def _added_split(plugin: Plugin, split: str, input_shape: tuple[int, int, int], root: Path, download: bool) -> Split:
    """A split of an installed package's dataset, checked: its code is somebody's."""
    name = plugin.value.card.name
    try:
        found = plugin.value.load(split, input_shape, root, download=download)
        if not isinstance(found, Split):
            raise TypeError(f"its loader returned {type(found).__name__}, not a exitbench.data.split.Split")
        said = (found.dataset, found.name, found.shape)
        if said != (name, split, input_shape) or not len(found):
            raise ValueError(f"asked for {(name, split, input_shape)}, its loader returned {said} with {len(found)} samples")
    except (UserError, DataUnavailable):
        raise
    except Exception as error:
        raise UserError(f"dataset {name!r} of {plugin.origin}: {first_line(error)}") from error
    return found


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

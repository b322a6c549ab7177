"""The one way to get a split: by dataset name, from the data directory or a checked download."""

from __future__ import annotations

from pathlib import Path

from bench.data.cards import dataset_card
from bench.data.cifar10 import load_cifar10
from bench.data.digits import load_digits
from bench.data.mnist import load_mnist
from bench.data.split import Split
from bench.errors import UserError


def load_split(dataset: str, split: str, input_shape: tuple[int, int, int], root: Path, *, download: bool = True) -> Split:
    """A split of ``dataset`` for a model that takes ``input_shape``.

    Args:
        dataset: ``cifar10``, ``mnist`` or ``digits``.
        split: ``train``, ``calibration`` (held out of train) or ``test``.
        input_shape: ``(C, H, W)``.
        root: the data directory.
        download: whether originals that are missing may be fetched.

    Raises:
        UserError: the data does not fit the model or is damaged.
        DataUnavailable: it is neither in ``root`` nor to be had.
        UnknownName: no such dataset.
    """
    card = dataset_card(dataset)
    if not card.fits(input_shape):
        raise UserError(f"{dataset} has images of {_by(card.input_shape)}, the model takes {_by(input_shape)}")
    if dataset == "cifar10":
        return load_cifar10(split, root, download=download)
    if dataset == "mnist":
        return load_mnist(split, root, download=download)
    return load_digits(split, input_shape)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

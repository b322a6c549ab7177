"""Loads splits by the name of their dataset, from the data directory or a checked download."""

from __future__ import annotations

from pathlib import Path

from exitbench.data.cards import Dataset, find_dataset
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.error_text import first_line
from exitbench.models.user_code import contained


def load_split(dataset: str, split: str, input_shape: tuple[int, int, int], root: Path, *, download: bool = True) -> Split:
    """A split of ``dataset`` for a model that takes ``input_shape``.

    Args:
        dataset: its registered name (``exitbench.data.cards``).
        split: ``train``, ``calibration`` (held out of train) or ``test``.
        input_shape: ``(C, H, W)``.
        root: the data directory.
        download: whether originals that are missing may be fetched.

    Raises:
        UserError: the data does not fit the model or is damaged.
        DataUnavailable: it is neither in ``root`` nor to be had.
        UnknownName: no such dataset.
    """
    found = find_dataset(dataset)
    if not found.card.fits(input_shape):
        raise UserError(f"{dataset} has images of {_by(found.card.input_shape)}, the model takes {_by(input_shape)}")
    if found.origin is None:
        with contained():
            return found.load(split, input_shape, root, download=download)
    return _added_split(found, split, input_shape, root, download)


def _added_split(dataset: Dataset, split: str, input_shape: tuple[int, int, int], root: Path, download: bool) -> Split:
    """Return a split of an installed package's dataset, checked: its code is somebody's."""
    name = dataset.card.name
    try:
        with contained():
            found = dataset.load(split, input_shape, root, download=download)
        if not isinstance(found, Split):
            raise TypeError(f"its loader returned {type(found).__name__}, not a exitbench.data.split.Split")
        said = (found.dataset, found.name, found.shape)
        if said != (name, split, input_shape) or not len(found):
            raise ValueError(f"asked for {(name, split, input_shape)}, its loader returned {said} with {len(found)} samples")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"dataset {name!r} of {dataset.origin}: {first_line(error)}") from error
    return found


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

"""Datasets in memory: images and labels registered as a dataset for the lifetime of the process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from exitbench.data.cards import Dataset, DatasetCard, register_dataset
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.user_code import contained

if TYPE_CHECKING:
    from exitbench.attacks.regions import Norm

PREFIX = "in-memory-"
"""Prefix of the names of these datasets; a digest of the images follows."""

STEPS, STEP_RATIO = 20, 1 / 4
"""Default steps and step size (over the radius) of PGD, as for CIFAR-10 in "Triple Wins"."""

USUAL_EPS: dict[Norm, float] = {"Linf": 8 / 255, "L2": 0.5}
"""Default radii: those of RobustBench for CIFAR-10."""

CALIBRATION = (
    "thresholds are set on held-out training images, never on those evaluated: hand some over as calibration=(images, labels), "
    "or give the thresholds themselves, as policy='entropy:0.3,...'"
)


def is_in_memory(dataset: str) -> bool:
    """Return whether the name is that of a dataset in memory."""
    return dataset.startswith(PREFIX)


_NOT_A_DATASET = (tuple, list, dict, str, Tensor, np.ndarray)


def register_in_memory(samples: object, *, n_classes: int, n: int | None = None, calibration: object = None) -> str:
    """Register images and labels under a name made from their content, and return the name.

    Args:
        samples: A pair of images ``(N, C, H, W)``, floats in [0, 1] or uint8, and labels ``(N,)``, as tensors or arrays; or a
            ``torch.utils.data.Dataset`` of such pairs, one image each.
        n_classes: Number of classes of the network.
        n: Number of samples to read, the first ones; None for all.
        calibration: Held-out training images in the same form; None if no thresholds have to be set.

    Raises:
        UserError: If labels are missing, or images are outside [0, 1] or of other shapes.
    """
    images, labels = arrays_of(samples, "dataset", n)
    held_out = None if calibration is None else arrays_of(calibration, "calibration", None)
    made = Split("in memory", "test", images, labels, n_classes, "in memory")
    name = f"{PREFIX}{made.digest()[:12]}"
    splits = {"test": Split(name, "test", images, labels, n_classes, "in memory")}
    if held_out is not None:
        splits["calibration"] = Split(name, "calibration", *held_out, n_classes, "in memory")

    def load(split: str, input_shape: tuple[int, int, int], root: Path, *, download: bool) -> Split:
        if split not in splits:
            raise UserError(CALIBRATION if split == "calibration" else f"{name} has no {split} images: it is in memory")
        return splits[split]

    summary = f"{len(images)} images of {'x'.join(map(str, made.shape))}, handed over in memory"
    card = DatasetCard(name, summary, made.shape, len(images), USUAL_EPS, STEPS, STEP_RATIO)
    given = Dataset(card, load, "this process", listed=False, calibrated=held_out is not None)
    register_dataset(given, replace=True)
    return name


def arrays_of(samples: Any, what: str, n: int | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return images ``(N, C, H, W)``, uint8 or float32 in [0, 1], and int64 labels ``(N,)``.

    Args:
        samples: See ``register_in_memory``.
        what: Name of the argument, for messages.
        n: Number of samples to read, the first ones; None for all.

    Raises:
        UserError: If ``samples`` has another form, labels are missing, or images are outside [0, 1].
    """
    if isinstance(samples, torch.utils.data.DataLoader):
        raise UserError(f"{what} is a DataLoader, whose order is its own; hand over the dataset itself: loader.dataset")
    if is_pair(samples):
        x, y = (torch.as_tensor(part)[:n].detach().cpu().clone() for part in samples)
        return _images(x, what), _labels(y, len(x), what)
    if not is_map_style(samples):
        raise UserError(
            f"{what} is {_form(samples)}; give the name of a dataset, a pair of tensors (images (N, C, H, W), labels (N,)), or a "
            "torch.utils.data.Dataset of pairs (image, label)"
        )
    with contained():
        return stacked(((i, samples[i]) for i in islice(range(len(samples)), n)), what)


def is_pair(samples: Any) -> bool:
    """Return whether ``samples`` are a pair of tensors or arrays."""
    pair = isinstance(samples, (tuple, list)) and len(samples) == 2
    return pair and all(isinstance(part, (Tensor, np.ndarray)) for part in samples)


def is_map_style(samples: Any) -> bool:
    """Return whether ``samples`` have a length and items, as a ``torch.utils.data.Dataset`` that is no iterable one has."""
    return hasattr(samples, "__getitem__") and hasattr(samples, "__len__") and not isinstance(samples, _NOT_A_DATASET)


def stacked(items: Iterable[tuple[int, Any]], what: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the images and labels of items of a dataset, as ``arrays_of`` does.

    Args:
        items: Pairs of an index, for messages, and the item there, a pair of image and label.
        what: Name of the dataset, for messages.

    Raises:
        UserError: If there is none, one is no such pair, images have several shapes, or are outside [0, 1].
    """
    images: list[Tensor] = []
    labels: list[int] = []
    for i, item in items:
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise UserError(f"sample {i} of {what} is {_form(item)}, without a label; it must be a pair (image, label)")
        image, label = item[0], item[1]
        if not isinstance(image, (Tensor, np.ndarray)):
            raise UserError(f"image {i} of {what} is {_form(image)}, not a tensor; give the dataset transform=ToTensor()")
        images.append(torch.as_tensor(image))
        labels.append(_label(label, i, what))
    if not images:
        raise UserError(f"{what} is empty")
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise UserError(f"images of {what} have several shapes: {', '.join(map(str, sorted(shapes)))}; resize them to one")
    return _images(torch.stack(images), what), _labels(torch.tensor(labels), len(labels), what)


def _label(label: object, i: int, what: str) -> int:
    if isinstance(label, (Tensor, np.ndarray)) and label.size and torch.as_tensor(label).numel() == 1:
        label = torch.as_tensor(label).item()
    if isinstance(label, np.integer):
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int):
        raise UserError(f"label {i} of {what} is {_form(label)}; labels must be whole numbers, 0..classes - 1")
    return label


def _images(x: Tensor, what: str) -> np.ndarray[Any, Any]:
    if x.ndim != 4 or not len(x):
        raise UserError(f"{what}: images have the shape {tuple(x.shape)}; it must be (N, C, H, W) with N > 0")
    if x.dtype == torch.uint8:
        return x.numpy()
    if not x.is_floating_point():
        raise UserError(f"{what}: images are {x.dtype}; they must be floats in [0, 1], or uint8")
    x = x.float()
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # also for NaN
        raise UserError(
            f"{what}: images must lie in [0, 1], these go from {low:.4g} to {high:.4g}; leave normalisation to the network "
            "(a first layer that subtracts the mean), and divide whole numbers by 255"
        )
    return x.contiguous().numpy()


def _labels(y: Tensor, n: int, what: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    if y.ndim != 1 or len(y) != n:
        raise UserError(f"{what}: there are {n} images, and labels of shape {tuple(y.shape)}; one label per image is needed")
    if y.is_floating_point() or y.dtype == torch.bool:
        raise UserError(f"{what}: labels are {y.dtype}; they must be whole numbers, 0..classes - 1")
    return y.to(torch.int64).numpy()


def _form(value: object) -> str:
    """Describe the type of a value in a few words."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value) if isinstance(value, (str, int, float)) else type(value).__name__

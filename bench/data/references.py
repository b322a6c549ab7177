"""Datasets that are named by where they are: ``imagefolder:PATH``, ``hf:PATH``, and ``path/to/file.py:function``.

Such a reference is opened once and registered, for the lifetime of the process, under a name that says what was opened: its own
name and a digest of its content. Reports and stored results know it by that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from exitbench.data.cards import Dataset, DatasetCard, register_dataset
from exitbench.data.decode import Shape
from exitbench.data.image_folder import open_image_folder
from exitbench.data.image_shards import open_image_shards
from exitbench.data.in_memory import STEP_RATIO, STEPS, USUAL_EPS
from exitbench.data.own_dataset import open_own_dataset
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.factory import absolute_reference
from exitbench.models.safe_name import safe_name

if TYPE_CHECKING:
    from exitbench.attacks.regions import Norm

EPS: Mapping[Norm, float] = {"Linf": 4 / 255, "L2": 3.0}
"""Default radii of images on disk: those of RobustBench for ImageNet."""

SIZE = 224
"""Side of images where neither the user nor the network names one."""

FORMS: Mapping[str, tuple[str, Mapping[Norm, float]]] = {
    "imagefolder:PATH": ("folders of images by class, cropped to the network's shape or ,size=N", EPS),
    "hf:PATH": ("a Hugging Face image dataset as parquet files, likewise", EPS),
    "file.py:function": ("images and labels, or a torch Dataset, that a function of yours returns", USUAL_EPS),
}
"""What each form is, and its usual radii."""

_LONGEST_NAME = 40
_OPTION = re.compile(r",([a-z]+)=([^,/\\]*)$")


class Opened(Protocol):
    """A dataset whose files are found and whose images are not read, or a user's that was read once."""

    @property
    def n_test(self) -> int:
        """The number of test images."""

    @property
    def n_classes(self) -> int | None:
        """The number of classes; None where nothing tells it."""

    @property
    def calibrated(self) -> bool:
        """Whether it has held-out training images."""

    def identity(self, options: Mapping[str, object]) -> str:
        """Return the SHA-256 (hex) that tells it, read with these options, from any other."""

    def load(self, split: str, name: str, shape: Shape) -> Split:
        """Return a split as images of ``shape``, of the dataset called ``name``."""


@dataclass(frozen=True)
class Place:
    """A reference to images on disk.

    Attributes:
        kind: ``imagefolder`` or ``hf``.
        path: The folder or file.
        options: What stands behind it, by name.
    """

    kind: str
    path: Path
    options: Mapping[str, str]

    def number(self, option: str) -> int | None:
        """Return the value of an option that is a length in pixels; None where it is not given.

        Raises:
            UserError: If it is no whole number from 1 to 4096.
        """
        text = self.options.get(option)
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 4096:
            raise UserError(f"{self.text}: {option}={text} must be a number of pixels, 1..4096")
        return int(text)

    @property
    def text(self) -> str:
        """The reference, as it is written."""
        return f"{self.kind}:{self.path}" + "".join(f",{name}={value}" for name, value in self.options.items())


def is_dataset_reference(dataset: str) -> bool:
    """Return whether a dataset is named by where it is; registered names have no colon and no suffix."""
    return ":" in dataset or dataset.endswith(".py")


def dataset_given(dataset: str) -> str:
    """Return the registered name of a dataset; one that is named by where it is, is opened and registered under one.

    The code of ``file.py:function`` is executed.

    Raises:
        UserError: If it cannot be opened; the message says what to do.
        ForeignModelError: If the user's code raises.
    """
    if not is_dataset_reference(dataset):
        return dataset
    kind, _, rest = dataset.partition(":")
    made = _on_disk(_place(kind, rest)) if kind in _OPENERS else _own(dataset)
    return register_dataset(made, replace=True).card.name


def _place(kind: str, rest: str) -> Place:
    options: dict[str, str] = {}
    while found := _OPTION.search(rest):
        options[found[1]] = found[2]
        rest = rest[: found.start()]
    known = _KNOWN[kind]
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"{kind}:{rest} has no option {unknown[0]!r} (known: {', '.join(known)})")
    if not rest:
        raise UserError(f"{kind}: names no folder; the form is {kind}:PATH, with options behind it such as ,{known[0]}={SIZE}")
    return Place(kind, Path(rest).expanduser(), dict(reversed(options.items())))


def _on_disk(place: Place) -> Dataset:
    """Open images on disk: they take the shape that ``size`` says, else that of the network."""
    size, resize = place.number("size"), place.number("resize")
    if resize is not None and resize < (size or 1):
        raise UserError(f"{place.text}: images cannot be resized to {resize} and then cropped to {size}")
    opened = _OPENERS[place.kind](place, f"{place.kind}:{place.path}")
    named = safe_name(place.path.resolve().stem)[:_LONGEST_NAME]
    name = safe_name(f"{place.kind}-{named}-{opened.identity({'size': size, 'resize': resize})[:12]}")
    shape = (3, size or SIZE, size or SIZE)
    reference = Place(place.kind, place.path.absolute(), place.options).text
    return _dataset(name, opened, shape, EPS, reference, resizable=size is None)


def _own(reference: str) -> Dataset:
    """Call the user's function; its images have the shape that it returns them in."""
    opened = open_own_dataset(reference)
    name = safe_name(f"{opened.name[:_LONGEST_NAME]}-{opened.identity({})[:12]}")
    return _dataset(name, opened, opened.shape, USUAL_EPS, absolute_reference(reference), resizable=False)


def _dataset(name: str, opened: Opened, shape: Shape, eps: Mapping[Norm, float], reference: str, *, resizable: bool) -> Dataset:
    def load(split: str, input_shape: Shape, root: Path, *, download: bool) -> Split:
        return opened.load(split, name, input_shape)

    classes = "" if opened.n_classes is None else f" of {opened.n_classes} classes"
    summary = f"{opened.n_test} images{classes}, given by whoever ran it"
    card = DatasetCard(name, summary, shape, opened.n_test, eps, STEPS, STEP_RATIO, resizable)
    return Dataset(card, load, reference, listed=False, calibrated=opened.calibrated, reference=reference)


def _image_folder(place: Place, what: str) -> Opened:
    return open_image_folder(place.path, what, place.options.get("split"), place.number("resize"))


def _image_shards(place: Place, what: str) -> Opened:
    options = place.options
    part, resize = options.get("split"), place.number("resize")
    return open_image_shards(place.path, what, part, resize, options.get("image"), options.get("label"))


_OPENERS: Mapping[str, Callable[[Place, str], Opened]] = {"imagefolder": _image_folder, "hf": _image_shards}
_KNOWN = {"imagefolder": ("size", "resize", "split"), "hf": ("size", "resize", "split", "image", "label")}

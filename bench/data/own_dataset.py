"""``file.py:function``: images and labels, or a torch ``Dataset``, that a function of the user's own returns.

Its items are read in slices, as they are needed. All of them are read once before, for the labels and for a digest of each: who
reads another image under the same index later is told so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from exitbench.data.in_memory import arrays_of, is_map_style, is_pair, stacked
from exitbench.data.lazy_images import LazyImages, Pixels
from exitbench.data.parts import Parts, fixed_order
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.factory import Factory, find_factory
from exitbench.models.spec import digest

ROLES = ("test", "calibration", "train")
_AT_A_TIME = 32

Ints = npt.NDArray[np.int64]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """Samples of a split, read on demand.

    Attributes:
        what: Names them in messages.
        samples: A pair of arrays, or a map-style dataset.
        rows: The rows that are used, in order.
        factory: The function that they come from; items are read where its imports work.
    """

    what: str
    samples: Any
    rows: Sequence[int]
    factory: Factory

    def items(self, wanted: range) -> tuple[Pixels, Ints]:
        """Return images ``(B, C, H, W)`` and labels ``(B,)`` of a range of the rows.

        Raises:
            UserError: If they are not of the form, see ``exitbench.data.in_memory``.
            ForeignModelError: If the user's code raises.
        """
        rows = [self.rows[i] for i in wanted]
        if is_pair(self.samples):
            x, y = self.samples
            return arrays_of((x[rows], y[rows]), self.what, None)
        with self.factory.at_home():
            found = [(row, self.samples[row]) for row in rows]
        return stacked(found, self.what)

    @cached_property
    def survey(self) -> Survey:
        """What is known of all samples, from reading each once."""
        labels, pixels, kinds = [], [], set()
        for start in range(0, len(self.rows), _AT_A_TIME):
            x, y = self.items(range(start, min(start + _AT_A_TIME, len(self.rows))))
            labels.append(y)
            pixels += _digests(x)
            kinds.add((tuple(x.shape[1:]), x.dtype))
            if len(kinds) > 1:
                told = " and ".join(sorted(f"{'x'.join(map(str, shape))} {kind}" for shape, kind in kinds))
                raise UserError(f"images of {self.what} are of several kinds: {told}; make them one")
        ((shape, kind),) = kinds
        return Survey(np.concatenate(labels), tuple(pixels), (shape[0], shape[1], shape[2]), kind)

    def read(self, wanted: range) -> Pixels:
        """Return images of a range of the rows, the same ones every time.

        Raises:
            UserError: If one is not the image that it was before.
        """
        x, _ = self.items(wanted)
        for i, now in zip(wanted, _digests(x), strict=True):
            if now != self.survey.pixels[i]:
                raise UserError(
                    f"image {self.rows[i]} of {self.what} is another one each time that it is read; leave out random augmentation"
                )
        return x

    def split(self, dataset: str, name: str, n_classes: int | None) -> Split:
        """Return the samples as a split of ``dataset``."""
        survey = self.survey
        images = LazyImages((len(self.rows), *survey.shape), survey.dtype, self.read)
        return Split(dataset, name, images, survey.labels, n_classes, self.what)


@dataclass(frozen=True, eq=False)
class Survey:
    """What is known of samples without holding their images.

    Attributes:
        labels: ``(N,)``.
        pixels: SHA-256 of the pixels of each image.
        shape: ``(C, H, W)``.
        dtype: uint8 or float32.
    """

    labels: Ints
    pixels: tuple[bytes, ...]
    shape: Shape
    dtype: np.dtype[Any]

    def identity(self) -> list[Any]:
        """Return the JSON values that tell these samples from others."""
        pixels = hashlib.sha256(b"".join(self.pixels)).hexdigest()
        return [pixels, self.labels.tolist(), list(self.shape), str(self.dtype)]


@dataclass(frozen=True)
class OwnDataset:
    """What the user's function returned.

    Attributes:
        name: Name of the function in reports.
        where: Its reference without folders.
        parts: The samples by split.
        n_classes: Number of classes; None where nothing tells it.
    """

    name: str
    where: str
    parts: dict[str, Part]
    n_classes: int | None

    @property
    def n_test(self) -> int:
        """The number of test images."""
        return len(self.parts["test"].rows)

    @property
    def calibrated(self) -> bool:
        """Whether it has held-out training images."""
        return "calibration" in self.parts

    @property
    def shape(self) -> Shape:
        """``(C, H, W)`` of an image."""
        return self.parts["test"].survey.shape

    def identity(self, options: Mapping[str, object]) -> str:
        """Return the SHA-256 (hex) over the pixels and labels of the test and calibration images."""
        used = [name for name in ("test", "calibration") if name in self.parts]
        return digest({**{name: self.parts[name].survey.identity() for name in used}, "options": dict(options)})

    def load(self, split: str, name: str, shape: Shape) -> Split:
        """Return ``train``, ``calibration`` or ``test``; images have the shape that they came in.

        Raises:
            UserError: If there is none, or labels are beyond the classes.
        """
        if split not in self.parts:
            raise UserError(f"{self.where} returns no {split} images (it returns: {', '.join(self.parts)})")
        return self.parts[split].split(name, split, self.n_classes)


def open_own_dataset(reference: str) -> OwnDataset:
    """Call the user's function and look at what it returns.

    It returns the test images: a pair ``(images, labels)`` or a map-style ``Dataset`` of pairs; or a dictionary of such under
    ``test`` and, where thresholds are to be set, ``calibration`` or ``train``, of which a fixed part is held out. ``classes`` in
    it, or the attribute ``classes`` of the test images, is the number of classes or their names.

    Raises:
        UserError: If it returns something else.
        ForeignModelError: If there is no such function, or it raises.
    """
    factory = find_factory(reference)
    made = factory.call()
    found = dict(made) if isinstance(made, dict) else {"test": made}
    classes = found.pop("classes", None)
    if unknown := sorted(set(map(str, found)) - set(ROLES)):
        raise UserError(f"{factory.where} returns {', '.join(unknown)}; known are {', '.join(ROLES)} and classes")
    if "test" not in found:
        raise UserError(f"{factory.where} returns no test images (it returns: {', '.join(found) or 'nothing'})")
    lengths = {name: _length(factory, name, samples) for name, samples in found.items()}
    parts = {name: Part(f"{factory.where} {name}", samples, range(lengths[name]), factory) for name, samples in found.items()}
    if "train" in parts and "calibration" not in parts:
        roles, order = Parts("test", "train"), fixed_order(lengths["train"]).tolist()
        for name in ("calibration", "train"):
            rows = order[roles.rows(name, len(order))]
            parts[name] = Part(f"{factory.where} {name}", found["train"], rows, factory)
    n_classes = _n_classes(factory, classes if classes is not None else getattr(found["test"], "classes", None))
    return OwnDataset(factory.name, factory.where, parts, n_classes)


def _length(factory: Factory, name: str, samples: Any) -> int:
    what = f"{factory.where} {name}"
    if isinstance(samples, torch.utils.data.DataLoader) or not (is_pair(samples) or is_map_style(samples)):
        arrays_of(samples, what, 0)  # says what it is and what is wanted
    if is_pair(samples):
        arrays_of(samples, what, 1)  # says what is wrong with the first
        if len(samples[0]) != len(samples[1]):
            raise UserError(f"{what}: there are {len(samples[0])} images and {len(samples[1])} labels")
        return len(samples[0])
    with factory.at_home():
        length = len(samples)
    if not length:
        raise UserError(f"{what} is empty")
    return length


def _n_classes(factory: Factory, classes: object) -> int | None:
    if classes is None:
        return None
    n_classes = len(classes) if isinstance(classes, (list, tuple)) else classes
    if isinstance(n_classes, bool) or not isinstance(n_classes, int) or n_classes < 1:
        raise UserError(f"{factory.where}: classes must be their names, or how many there are, not {classes!r}")
    return n_classes


def _digests(images: Pixels) -> list[bytes]:
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images]

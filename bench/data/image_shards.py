"""``hf:PATH``: a Hugging Face image dataset as parquet shards on disk, read lazily.

``PATH`` is a file or a folder of ``*.parquet`` files; the name of a shard, or of a folder around it, says which part it belongs
to (``data/test-00000-of-00002.parquet``). Rows have an image ``struct<bytes, path>`` and a label, and the schema's metadata names
the classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.data.decode import Shape, check_shape, decoded
from exitbench.data.lazy_images import LazyImages
from exitbench.data.parts import WHOLE, Parts, chosen_parts, fixed_order, part_named
from exitbench.data.shard import Shard, open_shard
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.spec import digest

SOURCE = "image parquet"
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """The columns of images and labels.

    Attributes:
        image: Name of the column of images.
        label: Name of the column of labels.
        classes: Names of the classes; None where the metadata does not name them.
    """

    image: str
    label: str
    classes: tuple[str, ...] | None


@dataclass(frozen=True)
class ImageShards:
    """A dataset of parquet shards.

    Attributes:
        what: Names it in messages.
        shards: The shards of each part, in the order of their names.
        parts: The roles of the parts.
        columns: Where images and labels are.
        resize: See ``exitbench.data.decode.decoded``.
    """

    what: str
    shards: Mapping[str, Sequence[Shard]]
    parts: Parts
    columns: Columns
    resize: int | None

    @property
    def n_test(self) -> int:
        """The number of test images."""
        return self.count(self.parts.test)

    @property
    def n_classes(self) -> int | None:
        """The number of classes; None where the metadata does not name them."""
        return None if self.columns.classes is None else len(self.columns.classes)

    @property
    def calibrated(self) -> bool:
        """Whether it has held-out training images."""
        return self.parts.held_out is not None

    def count(self, part: str) -> int:
        """Return how many images a part has."""
        return sum(shard.n_rows for shard in self.shards[part])

    def identity(self, options: Mapping[str, object]) -> str:
        """Return the SHA-256 (hex) over classes and the footers of all shards, which have sizes and statistics of all columns."""
        used = [part for part in (self.parts.test, self.parts.held_out) if part is not None]
        footers = {part or "all": [shard.footer_digest() for shard in self.shards[part]] for part in used}
        return digest({"classes": self.columns.classes, "footers": footers, "options": dict(options)})

    def load(self, split: str, name: str, shape: Shape) -> Split:
        """Return ``train``, ``calibration`` or ``test`` as images of ``shape``, with all labels and no image read.

        Raises:
            UserError: If there are none, labels are beyond the classes, or the images cannot have this shape.
        """
        check_shape(shape, self.what)
        part = self.parts.name_of(split)
        rows = np.empty(0, np.int64) if part is None else fixed_order(self.count(part))[self.parts.rows(split, self.count(part))]
        if part is None or not len(rows):
            raise UserError(f"{self.what} has no {split} images")
        shards, classes = self.shards[part], self.columns.classes
        labels = np.concatenate([shard.labels(self.columns.label, classes) for shard in shards])[rows]
        read = partial(_read, shards, self.columns.image, rows, shape, self.resize)
        images = LazyImages((len(rows), *shape), np.dtype(np.uint8), read)
        return Split(name, split, images, labels, self.n_classes, SOURCE)


def open_image_shards(
    path: Path, what: str, asked: str | None, resize: int | None, image: str | None, label: str | None
) -> ImageShards:
    """Find the shards of a dataset and their columns.

    Args:
        path: A folder or a parquet file.
        what: Names it in messages.
        asked: Name of the part that is the test split; None for the usual one.
        resize: See ``exitbench.data.decode.decoded``.
        image: Name of the column of images; None for the one that the metadata names, or ``image`` or ``img``.
        label: Name of the column of labels; None for the one that the metadata names, or ``label``.

    Raises:
        UserError: If there are no shards, one cannot be read, they have other columns or classes, or columns are ambiguous.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet")) if path.is_dir() else []
    if not files:
        raise UserError(f"{what}: there is no parquet file {'in' if path.is_dir() else 'or folder'} {path}")
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        found[_part_of(file, path)].append(file)
    parts = chosen_parts(found, asked, what)
    used = [part for part in (parts.test, parts.held_out) if part is not None]
    shards = {part: [open_shard(file) for file in found[part]] for part in used}
    first, *others = chain.from_iterable(shards.values())
    columns = _columns(first, image, label)
    for other in others:
        if _columns(other, columns.image, columns.label) != columns:
            raise UserError(f"{other.path} has other classes than {first.path}; name the folder of one dataset alone")
    return ImageShards(what, shards, parts, columns, resize)


def _part_of(file: Path, root: Path) -> str:
    """Return the part that the name of a shard says, or that of the innermost folder below ``root`` that says one."""
    inner = file.relative_to(root).parts if file != root else (file.name,)
    names = (part_named(name.removesuffix(".parquet")) for name in reversed(inner))
    return next((name for name in names if name is not None), WHOLE)


def _columns(shard: Shard, image: str | None, label: str | None) -> Columns:
    features = shard.features()
    image = _one(shard, "image", image, _of_type(features, "Image"), ("image", "img"))
    label = _one(shard, "label", label, _of_type(features, "ClassLabel"), ("label",))
    if image not in shard.images:
        raise UserError(f"{shard.path}: the column {image!r} is no struct of an image's bytes and path")
    names = features.get(label, {}).get("names")
    is_named = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    return Columns(image, label, tuple(names or ()) if is_named else None)


def _one(shard: Shard, kind: str, asked: str | None, typed: Sequence[str], usual: Sequence[str]) -> str:
    """Return the column that was asked for, else the one that the metadata says is of this kind, else one of a usual name."""
    found = [asked] if asked is not None else list(typed) or [name for name in usual if name in shard.columns]
    if len(found) == 1 and found[0] in shard.columns:
        return found[0]
    wrong = f"has several columns of {kind}s" if len(found) > 1 else f"has no column {(found or usual)[0]!r}"
    raise UserError(f"{shard.path} {wrong}; say which one is meant, as in ,{kind}=NAME (it has: {', '.join(shard.columns)})")


def _read(
    shards: Sequence[Shard], column: str, rows: Ints, shape: Shape, resize: int | None, wanted: range
) -> npt.NDArray[np.uint8]:
    """Decode the images of a range of samples, reading each row group that they are in once."""
    pixels = np.empty((len(wanted), *shape), dtype=np.uint8)
    places = {int(rows[i]): at for at, i in enumerate(wanted)}
    starts = np.cumsum([0, *(shard.n_rows for shard in shards)])
    for shard, start, stop in zip(shards, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        inside = sorted(row - start for row in places if start <= row < stop)
        for row, coded in shard.coded_images(column, inside):
            pixels[places[start + row]] = decoded(coded, shape, resize, f"the image in row {row} of {shard.path}")
    return pixels


def _of_type(features: Mapping[str, Mapping[str, object]], kind: str) -> list[str]:
    return [name for name, feature in features.items() if feature.get("_type") == kind]

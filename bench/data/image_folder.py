"""``imagefolder:PATH``: a folder of images for each class, read lazily.

The class folders are in parts such as ``train`` and ``val`` (ImageNet's layout), or directly in ``PATH``, which is then all test
images. Classes are the names of the folders in sorted order, as in torchvision's ``ImageFolder``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.data.decode import SUFFIXES, Shape, check_shape, decoded
from exitbench.data.lazy_images import LazyImages
from exitbench.data.parts import ALIASES, WHOLE, Parts, chosen_parts, fixed_order
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.spec import digest

SOURCE = "image files"


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images.

    Attributes:
        what: Names it in messages.
        folders: Folder of each part.
        parts: Their roles.
        classes: Names of the classes, in the order of their labels.
        resize: See ``exitbench.data.decode.decoded``.
        known: Files of the parts that were looked through.
    """

    what: str
    folders: Mapping[str, Path]
    parts: Parts
    classes: tuple[str, ...]
    resize: int | None
    known: dict[str, list[tuple[Path, int]]] = field(default_factory=dict)

    @property
    def n_test(self) -> int:
        """The number of test images."""
        return len(self.samples("test"))

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def calibrated(self) -> bool:
        """Whether it has held-out training images."""
        return self.parts.held_out is not None

    def files(self, part: str) -> list[tuple[Path, int]]:
        """Return the image files of a part with their labels, in their fixed order.

        Raises:
            UserError: If there is none.
        """
        if part in self.known:
            return self.known[part]
        found = [
            (path, label) for label, name in enumerate(self.classes) for path in sorted(_images_in(self.folders[part] / name))
        ]
        if not found:
            raise UserError(f"{self.folders[part]} holds no images in its class folders (known: {', '.join(sorted(SUFFIXES))})")
        self.known[part] = [found[i] for i in fixed_order(len(found)).tolist()]
        return self.known[part]

    def samples(self, split: str) -> list[tuple[Path, int]]:
        """Return the image files of ``train``, ``calibration`` or ``test`` with their labels; none where there are none."""
        part = self.parts.name_of(split)
        if part is None:
            return []
        files = self.files(part)
        return files[self.parts.rows(split, len(files))]

    def identity(self, options: Mapping[str, object]) -> str:
        """Return the SHA-256 (hex) over classes, names and sizes of the test images, and the held-out images' content.

        Test images themselves are in the key of every result; calibration logits are stored under the dataset's name.
        """
        held_out = [(label, _content_digest(path)) for path, label in self.samples("calibration")]
        test = [(path.relative_to(self.folders[self.parts.test]).as_posix(), _size(path)) for path, _ in self.samples("test")]
        return digest({"classes": list(self.classes), "test": test, "held out": held_out, "options": dict(options)})

    def load(self, split: str, name: str, shape: Shape) -> Split:
        """Return ``train``, ``calibration`` or ``test`` as images of ``shape``.

        Raises:
            UserError: If there are none, or they cannot have this shape.
        """
        check_shape(shape, self.what)
        samples = self.samples(split)
        if not samples:
            raise UserError(f"{self.what} has no {split} images")
        read = partial(_read, [path for path, _ in samples], shape, self.resize)
        images = LazyImages((len(samples), *shape), np.dtype(np.uint8), read)
        labels = np.array([label for _, label in samples], dtype=np.int64)
        return Split(name, split, images, labels, len(self.classes), SOURCE)


def open_image_folder(folder: Path, what: str, asked: str | None, resize: int | None) -> ImageFolder:
    """Find the parts and classes of a folder of images; no image is read.

    Args:
        folder: The folder.
        what: Names it in messages.
        asked: Name of the part that is the test split; None for the usual one.
        resize: See ``exitbench.data.decode.decoded``.

    Raises:
        UserError: If it is no folder, has no class folders, or test images are of classes that the training images have not.
    """
    if not folder.is_dir():
        raise UserError(f"{what}: there is no folder {folder}")
    try:
        found = _parts_in(folder)
        parts = chosen_parts(found, asked, what)
        classes = _folders_in(found[parts.held_out or parts.test])
        tested = _folders_in(found[parts.test])
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error
    if not classes or not tested:
        empty = found[parts.test] if not tested else found[parts.held_out or parts.test]
        raise UserError(f"{what}: {empty} has no class folders; images must be in one folder for each class")
    if beyond := sorted(set(tested) - set(classes)):
        raise UserError(
            f"{found[parts.test] / beyond[0]} is a class that {found[parts.held_out or parts.test]} does not have; its "
            f"{len(classes)} folders are the classes ({', '.join(classes[:3])}, ...)"
        )
    return ImageFolder(what, found, parts, tuple(classes), resize)


def _parts_in(folder: Path) -> dict[str, Path]:
    """Return the folders of the parts that have class folders; the folder itself where there are none."""
    found: dict[str, Path] = {}
    for name in _folders_in(folder):
        part = ALIASES.get(name.lower())
        if part is None or not _folders_in(folder / name):
            continue
        if part in found:
            raise UserError(f"{folder} has two folders of {part} images, {found[part].name} and {name}; remove or rename one")
        found[part] = folder / name
    return found or {WHOLE: folder}


def _folders_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images_in(folder: Path) -> Iterator[Path]:
    """Yield the image files below a class folder; links to folders below it are not followed."""
    for where, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            path = Path(where, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def _read(paths: Sequence[Path], shape: Shape, resize: int | None, rows: range) -> npt.NDArray[np.uint8]:
    pixels = np.empty((len(rows), *shape), dtype=np.uint8)
    for at, row in enumerate(rows):
        pixels[at] = decoded(paths[row], shape, resize, str(paths[row]))
    return pixels


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _content_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error

"""Reads image parquet files in Hugging Face's layout: ``img: struct<bytes, path>`` and ``label: int64``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.data.parquet_bounds import opened_within_bounds
from exitbench.errors import UserError

Ints = npt.NDArray[np.int64]

MOST_CODED = 65_536
"""Bytes of an image as PNG or JPEG: twenty times those of 32x32 pixels, so that there is room for a colour profile."""

_JPEG_MAGIC = b"\xff\xd8\xff"


def read_image_parquet(
    path: Path,
    *,
    lossy_allowed: bool,
    wanted: Callable[[Ints], npt.NDArray[np.bool_]] | None = None,
    size: tuple[int, int] = (32, 32),
) -> tuple[npt.NDArray[np.uint8], Ints, Ints]:
    """Read images ``(N, H, W, 3)``, labels ``(N,)`` and row numbers ``(N,)`` from a file.

    Args:
        path: The parquet file.
        lossy_allowed: Whether JPEG images are accepted.
        wanted: Selects rows by their numbers; only these are decoded.
        size: ``(H, W)`` of every image.

    Raises:
        UserError: If the file is not a readable parquet of images, takes too much memory, holds images of another size, or JPEG
            images and ``lossy_allowed`` is false.
    """
    import pyarrow as pa

    try:
        coded, labels = _columns(path)
    except UserError:
        raise
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a readable image parquet file ({error})") from error
    rows = np.arange(len(labels), dtype=np.int64)
    rows = rows if wanted is None else rows[wanted(rows)]
    chosen = [coded[row] for row in rows]
    images = [image for image in chosen if image is not None]
    if len(images) < len(chosen):
        raise UserError(f"{path} has rows without image bytes")
    if not lossy_allowed and any(image.startswith(_JPEG_MAGIC) for image in images):
        raise UserError(f"{path} holds JPEG images; robustness is measured on the original pixels only")
    return _decoded(path, images, size), labels[rows], rows


def number_of_rows(path: Path) -> int:
    """Return how many rows a file says that it has.

    Raises:
        UserError: If it is not a readable parquet file.
    """
    import pyarrow as pa

    try:
        return int(opened_within_bounds(path, (), ()).metadata.num_rows)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(f"{path} is not a readable image parquet file ({error})") from error


def _columns(path: Path) -> tuple[list[bytes | None], Ints]:
    """Return the bytes of each row's image, equal ones as one object, and the labels."""
    import pyarrow as pa

    names = ("img.bytes", "image.bytes")
    file = opened_within_bounds(path, (*names, "label"), names)
    known = file.schema_arrow.names
    column = "img" if "img" in known else "image"
    table = file.read(columns=[f"{column}.bytes", "label"])
    coded: list[bytes | None] = []
    for chunk in table.column(column).chunks:
        (images,) = chunk.flatten()
        values = images.dictionary if isinstance(images.type, pa.DictionaryType) else images
        if len(values) and max(length or 0 for length in _lengths(values)) > MOST_CODED:
            raise UserError(f"{path} holds an image of more than {MOST_CODED:,} bytes; those of 32x32 pixels have about 2,500")
        distinct = values.to_pylist()
        indices = images.indices.to_pylist() if values is not images else range(len(values))
        coded += [None if i is None else distinct[i] for i in indices]
    return coded, np.asarray(table.column("label").to_pylist(), dtype=np.int64)


def _lengths(values: Any) -> Iterator[int | None]:
    import pyarrow.compute as pc

    found: Iterator[int | None] = iter(pc.binary_length(values).to_pylist())
    return found


def _decoded(path: Path, coded: Sequence[bytes], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Decode images of one size; it is checked from the header, before the pixels are."""
    height, width = size
    pixels = np.empty((len(coded), height, width, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images that are far too large, which are refused
        for i, image in enumerate(coded):
            pixels[i] = _pixels(path, image, (width, height))
    return pixels


def _pixels(path: Path, coded: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(coded), formats=("PNG", "JPEG")) as image:
            found = image.size
            if found == size:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError and more
        raise UserError(f"{path} holds an image that cannot be decoded ({error})") from error
    raise UserError(f"{path} holds an image of {found[0]}x{found[1]} pixels; they must be {size[0]}x{size[1]}")

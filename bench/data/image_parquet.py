"""Reads image parquet files in Hugging Face's layout: ``img: struct<bytes, path>`` and ``label: int64``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.data.parquet_bounds import opened_within_bounds
from exitbench.errors import UserError

Ints = npt.NDArray[np.int64]

MOST_CODED = 65_536
"""Bytes of an image as PNG or JPEG: twenty times those of 32x32 pixels, so that there is room for a colour profile."""

_IMAGES = ("img.bytes", "image.bytes")
_ROWS_AT_ONCE = 32  # each may refer to the longest value of a dictionary
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
        file = opened_within_bounds(path, (*_IMAGES, "label"))
        rows = np.arange(file.metadata.num_rows, dtype=np.int64)
        rows = rows if wanted is None else rows[wanted(rows)]
        pixels, labels = np.empty((len(rows), *size, 3), dtype=np.uint8), np.empty(len(rows), dtype=np.int64)
        for place, (coded, label) in zip(_places(rows, file.metadata.num_rows), _samples(path, file), strict=True):
            if place is not None:
                pixels[place], labels[place] = _pixels(path, coded, size, lossy_allowed=lossy_allowed), label
    except UserError:
        raise
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a readable image parquet file ({error})") from error
    return pixels, labels, rows


def number_of_rows(path: Path) -> int:
    """Return how many rows a file says that it has.

    Raises:
        UserError: If it is not a readable parquet file.
    """
    import pyarrow as pa

    try:
        return int(opened_within_bounds(path, ()).metadata.num_rows)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(f"{path} is not a readable image parquet file ({error})") from error


def _places(rows: Ints, n: int) -> Iterator[int | None]:
    """Yield for each row of a file its place among ``rows``, or None."""
    places = np.full(n, -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return (None if place < 0 else int(place) for place in places)


def _samples(path: Path, file: Any) -> Iterator[tuple[bytes | None, int]]:
    """Yield the bytes of each row's image, and its label, from a few rows at a time."""
    column = "img" if "img" in file.schema_arrow.names else "image"
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[f"{column}.bytes", "label"], use_threads=False):
        (images,) = batch.column(column).flatten()
        yield from zip(_coded(path, images), batch.column("label").to_pylist(), strict=True)


def _coded(path: Path, images: Any) -> list[bytes | None]:
    """Return the bytes of images, none of which is too long."""
    import pyarrow.compute as pc

    if (pc.max(pc.binary_length(images)).as_py() or 0) > MOST_CODED:
        raise UserError(f"{path} holds an image of more than {MOST_CODED:,} bytes; those of 32x32 pixels have about 2,500")
    found: list[bytes | None] = images.to_pylist()
    return found


def _pixels(path: Path, coded: bytes | None, size: tuple[int, int], *, lossy_allowed: bool) -> npt.NDArray[np.uint8]:
    """Decode an image; what it is, and how large, is checked from its header, before its pixels are."""
    from PIL import Image

    if coded is None:
        raise UserError(f"{path} has rows without image bytes")
    if coded.startswith(_JPEG_MAGIC) and not lossy_allowed:
        raise UserError(f"{path} holds JPEG images; robustness is measured on the original pixels only")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an image that is far too large, which is refused
            image = Image.open(io.BytesIO(coded), formats=("PNG", "JPEG"))
        width, height = image.size
        if (height, width) == size:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError and more
        raise UserError(f"{path} holds an image that cannot be decoded ({error})") from error
    raise UserError(f"{path} holds an image of {width}x{height} pixels; they must be {size[1]}x{size[0]}")

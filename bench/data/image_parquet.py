"""Reads image parquet files in Hugging Face's layout: ``img: struct<bytes, path>`` and ``label: int64``."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exitbench.errors import UserError

Ints = npt.NDArray[np.int64]

_JPEG_MAGIC = b"\xff\xd8\xff"


def read_image_parquet(
    path: Path, *, lossy_allowed: bool, wanted: Callable[[Ints], npt.NDArray[np.bool_]] | None = None
) -> tuple[npt.NDArray[np.uint8], Ints, Ints]:
    """Read images ``(N, H, W, 3)``, labels ``(N,)`` and row numbers ``(N,)`` from a file.

    Args:
        path: The parquet file.
        lossy_allowed: Whether JPEG images are accepted.
        wanted: Selects rows by their numbers; only these are decoded.

    Raises:
        UserError: If the file is not a readable parquet of images, or holds JPEG images and ``lossy_allowed`` is false.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image, UnidentifiedImageError

    try:
        table = pq.read_table(path)
        column = "img" if "img" in table.column_names else "image"
        rows = np.arange(table.num_rows, dtype=np.int64)
        rows = rows if wanted is None else rows[wanted(rows)]
        table = table.take(rows)
        coded = [row["bytes"] for row in table.column(column).to_pylist()]
        labels = np.asarray(table.column("label").to_pylist(), dtype=np.int64)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a readable image parquet file ({error})") from error
    if any(not isinstance(image, bytes) for image in coded):
        raise UserError(f"{path} has rows without image bytes")
    if not lossy_allowed and any(image.startswith(_JPEG_MAGIC) for image in coded):
        raise UserError(f"{path} holds JPEG images; robustness is measured on the original pixels only")
    try:
        decoded = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in coded]
        return np.stack(decoded), labels, rows
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise UserError(f"{path} holds an image that cannot be decoded ({error})") from error

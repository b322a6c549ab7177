"""One parquet shard of images and labels: what its footer says, its labels, and single images, without reading it whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exitbench.data.parquet_bounds import MOST_BYTES, largest_page
from exitbench.errors import UserError

MOST_CODED = 64_000_000
"""Bytes of an image as a file."""

MOST_PAGE = MOST_BYTES
"""Bytes of a page of images, unpacked: a thousand photographs have a quarter of it."""

MOST_ROWS = 10_000_000
"""Rows of a shard; all of ImageNet's training images are 1.3 million."""

_MOST_FOOTER = 64_000_000
_LIMITS = {"thrift_string_size_limit": 1 << 24, "thrift_container_size_limit": 1_000_000}
_ROWS_AT_A_TIME = 32
_BUFFER = 1 << 20

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """A parquet file.

    Attributes:
        path: The file.
        groups: Number of rows of each row group.
        columns: Names of the columns.
        images: Names of those that are ``struct<bytes, ...>``, of which the bytes are binary.
        metadata: The schema's, in Hugging Face's JSON; empty without one.
    """

    path: Path
    groups: tuple[int, ...]
    columns: tuple[str, ...]
    images: tuple[str, ...]
    metadata: bytes

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return sum(self.groups)

    def features(self) -> dict[str, dict[str, Any]]:
        """Return Hugging Face's description of the columns; empty where there is none that can be read."""
        try:
            found = json.loads(self.metadata)["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}

    def footer_digest(self) -> str:
        """Return the SHA-256 (hex) of the footer."""
        return hashlib.sha256(_footer(self.path)).hexdigest()

    def labels(self, column: str, classes: Sequence[str] | None) -> Ints:
        """Return the labels of all rows.

        Raises:
            UserError: If they are no whole numbers, or not among the classes; the row is named.
        """
        import pyarrow as pa

        with _readable(self.path):
            values = _opened(self.path).read(columns=[column]).column(column).combine_chunks()
            is_whole = pa.types.is_integer(values.type) and not values.null_count
        if not is_whole:
            kind = f"{values.null_count} missing values" if values.null_count else f"values of type {values.type}"
            raise UserError(f"{self.path}: labels ({column}) must be whole numbers, it has {kind}")
        labels = np.asarray(values.to_numpy(zero_copy_only=False)).astype(np.int64)
        wrong = np.flatnonzero((labels < 0) | (labels >= (np.iinfo(np.int64).max if classes is None else len(classes))))
        if len(wrong):
            label = int(labels[wrong[0]])
            allowed = "0 or more" if classes is None else f"0..{len(classes) - 1}, it names {len(classes)} classes"
            hint = "; -1 stands for labels that are withheld: name another part, as in ,split=validation" if label == -1 else ""
            raise UserError(f"{self.path}: the label ({column}) of row {wrong[0]} is {label}; labels must be {allowed}{hint}")
        return labels

    def coded_images(self, column: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield row numbers and the files of their images, for sorted ``rows``; row groups without any are not read.

        Raises:
            UserError: If the file cannot be read, or a row has no image.
        """
        start = 0
        for group, size in enumerate(self.groups):
            inside = [row - start for row in rows if start <= row < start + size]
            for offset, coded in self._in_group(column, group, inside):
                yield start + offset, self._checked(column, start + offset, coded)
            start += size

    def _in_group(self, column: str, group: int, offsets: list[int]) -> Iterator[tuple[int, object]]:
        """Yield the images at ``offsets`` of a row group, of which few rows are in memory at a time."""
        if not offsets:
            return
        leaf = f"{column}.bytes"
        with _readable(self.path):
            file = _opened(self.path, [leaf])  # repeated images are in memory once
            self._check_pages(file.metadata.row_group(group), leaf)
            at, waiting = 0, list(offsets)
            for batch in file.iter_batches(_ROWS_AT_A_TIME, row_groups=[group], columns=[leaf], use_threads=False):
                (images,) = batch.column(0).flatten()
                while waiting and waiting[0] < at + len(images):
                    yield waiting[0], images[waiting[0] - at].as_py()
                    del waiting[0]
                if not waiting:
                    return
                at += len(images)

    def _check_pages(self, group: Any, leaf: str) -> None:
        """Refuse images that take too much memory, by what their pages say."""
        chunks = [group.column(i) for i in range(group.num_columns)]
        for chunk in chunks:
            if chunk.path_in_schema == leaf and (size := largest_page(self.path, chunk)) > MOST_PAGE:
                raise UserError(f"{self.path}: a page of images unpacks to {size:,} bytes; at most {MOST_PAGE:,} are read")

    def _checked(self, column: str, row: int, coded: object) -> bytes:
        if not isinstance(coded, bytes):
            raise UserError(f"{self.path}: row {row} has no image bytes in {column!r}; images must be stored in the file")
        if len(coded) > MOST_CODED:
            raise UserError(f"{self.path}: the image in row {row} has {len(coded):,} bytes; at most {MOST_CODED:,} are read")
        return coded


def open_shard(path: Path) -> Shard:
    """Read the footer of a shard.

    Raises:
        UserError: If it is not a readable parquet file.
    """
    with _readable(path):
        _footer(path)
        file = _opened(path)
        groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))
        if sum(groups) > MOST_ROWS:
            raise UserError(f"{path} says that it has {sum(groups):,} rows; at most {MOST_ROWS:,} are read")
        schema = file.schema_arrow
        images = tuple(field.name for field in schema if _holds_images(field.type))
        return Shard(path, groups, tuple(schema.names), images, (schema.metadata or {}).get(b"huggingface", b""))


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    return bool(pa.types.is_binary(kind.field("bytes").type) or pa.types.is_large_binary(kind.field("bytes").type))


def _opened(path: Path, dictionaries: Sequence[str] = ()) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER, read_dictionary=list(dictionaries), **_LIMITS)


def _footer(path: Path) -> bytes:
    """Return the bytes of the footer, of a plausible length."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        end = file.read(8)
        length = int.from_bytes(end[:4], "little")
        if size < 12 or end[4:] != b"PAR1" or length > min(_MOST_FOOTER, size - 8):
            raise ValueError("it does not end with a parquet file's footer")
        file.seek(size - 8 - length)
        return file.read(length)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise what is wrong with a file as a ``UserError`` that names it."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a readable parquet file ({error})") from error

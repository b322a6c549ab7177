"""Says what a parquet file takes when it is unpacked, before any of it is: from its footer, and from the headers of its pages.

The footer says how large the columns are, but whoever wrote it may have lied; memory is taken by what a page's header says.
Both are in Thrift's compact protocol (https://parquet.apache.org/docs/file-format/): pyarrow reads footers, not headers.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from exitbench.errors import UserError

MOST_ROWS = 60_000
"""Rows of a file: CIFAR-10 has as many in all."""

MOST_BYTES = 200_000_000
"""Bytes of what is read of a file, unpacked; CIFAR-10's training images are 130 MB as PNG files."""

MOST_DICTIONARY = 8_000_000
"""Bytes of a dictionary, whose values any number of rows may refer to; writers end one at about 1 MB."""

_MOST_FOOTER, _BUFFER = 8_000_000, 1 << 16
_TYPE, _UNCOMPRESSED, _COMPRESSED = 1, 2, 3
"""Fields of a page's header: what it is, its size unpacked, and in the file."""

_DICTIONARY_PAGE = 2


class Malformed(ValueError):
    """The bytes are not what the format says."""


def opened_within_bounds(path: Path, columns: Collection[str]) -> Any:
    """Open a file whose rows and columns take little memory, as a ``pyarrow.parquet.ParquetFile``.

    Args:
        path: The file.
        columns: The leaves that are going to be read, such as ``img.bytes``.

    Raises:
        UserError: If it would take more than ``MOST_ROWS`` rows, ``MOST_BYTES`` bytes, or ``MOST_DICTIONARY`` of a dictionary.
        ValueError, OSError: If it is not a parquet file.
    """
    import pyarrow.parquet as pq

    _refuse_long_footer(path)
    limits = {"buffer_size": _BUFFER, "thrift_string_size_limit": 1 << 20, "thrift_container_size_limit": 100_000}
    file = pq.ParquetFile(path, **limits)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    rows = max(file.metadata.num_rows, sum(group.num_rows for group in groups))
    if rows > MOST_ROWS:
        raise UserError(f"{path} says that it has {rows:,} rows; at most {MOST_ROWS:,} are read")
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    wanted = [chunk for chunk in chunks if chunk.path_in_schema in columns and chunk.num_values > 0]
    unpacked = max(sum(chunk.total_uncompressed_size for chunk in wanted), _in_pages(path, wanted))
    if unpacked > MOST_BYTES:
        raise UserError(f"{path} unpacks from {path.stat().st_size:,} bytes to {unpacked:,}; at most {MOST_BYTES:,} are read")
    return file


def _refuse_long_footer(path: Path) -> None:
    """Raise ``Malformed`` for a footer of no plausible length, which would be read whole."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        end = file.read(8)
    if size < 12 or end[4:] != b"PAR1" or int.from_bytes(end[:4], "little") > _MOST_FOOTER:
        raise Malformed("it does not end with a parquet file's footer")


def _in_pages(path: Path, chunks: Collection[Any]) -> int:
    """Return how many bytes the pages of these column chunks say that they unpack to, up to where it is too much."""
    found = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for chunk in chunks:
            at = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            end = min(at + chunk.total_compressed_size, len(content))
            while 0 <= at < end and found <= MOST_BYTES:
                header = _Header(content, at)
                found += header.sizes[_UNCOMPRESSED]
                if header.sizes.get(_TYPE) == _DICTIONARY_PAGE and header.sizes[_UNCOMPRESSED] > MOST_DICTIONARY:
                    size = header.sizes[_UNCOMPRESSED]
                    raise UserError(f"{path} has a dictionary of {size:,} bytes; at most {MOST_DICTIONARY:,} are read")
                at = header.end + header.sizes[_COMPRESSED]
    return found


def largest_page(path: Path, chunk: Any) -> int:
    """Return how many bytes the largest page of a column chunk says that it unpacks to.

    Args:
        path: The file.
        chunk: Metadata of the column chunk, as pyarrow has it.

    Raises:
        ValueError, OSError: If it is not a parquet file.
    """
    found = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
        end = min(at + chunk.total_compressed_size, len(content))
        while 0 <= at < end:
            header = _Header(content, at)
            found = max(found, header.sizes[_UNCOMPRESSED])
            at = header.end + header.sizes[_COMPRESSED]
    return found


class _Header:
    """A page's header: the whole numbers of its first level, by field, and where it ends."""

    def __init__(self, content: mmap.mmap, at: int) -> None:
        self._content, self.end = content, at
        self.sizes: dict[int, int] = {}
        self._struct(self.sizes)
        if min(self.sizes.get(field, -1) for field in (_UNCOMPRESSED, _COMPRESSED)) < 0:
            raise Malformed("a page does not say how large it is")

    def _byte(self) -> int:
        if self.end >= len(self._content):
            raise Malformed("it ends within the header of a page")
        self.end += 1
        return self._content[self.end - 1]

    def _varint(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 0x80 and shift < 64:
            found, shift = found | (byte & 0x7F) << shift, shift + 7
        return found | byte << shift

    def _integer(self) -> int:
        zigzag = self._varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def _struct(self, numbers: dict[int, int], depth: int = 0) -> None:
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            kind = head & 0x0F
            if kind in (4, 5, 6):
                numbers[field] = self._integer()
            elif kind not in (1, 2):  # truth values have no bytes of their own in a structure
                self._skip(kind, depth)

    def _skip(self, kind: int, depth: int) -> None:
        if kind == 12 and depth < 8:
            self._struct({}, depth + 1)
        elif kind == 8:
            length = self._varint()
            self.end += length
        elif kind in (3, 7):
            self.end += 1 if kind == 3 else 8
        else:
            raise Malformed("a page's header holds what no such header has")

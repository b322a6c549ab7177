"""Reads and writes npz files: what one declares is checked before anything is unpacked, and nothing in it is executed."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

FLOOR, TIMES = 400_000_000, 8
"""A file is unpacked to 400 MB, or to eight times its size where that is more: images with noise do not shrink like that."""

MOST_HEADER = 2**24
"""Largest text in a file, in bytes."""

LEVEL = 1
"""Of compression: 3 to 9 ms for a cell of images that 6 takes 53 to 60 ms for, and 5 % larger (docs/speed.md)."""

_MOST_NAMES = 2**20  # bytes of the list of members
_MAGIC = np.lib.format.magic(1, 0)
_CHUNK = 2**20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

Sizes = dict[str, int]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Kind:
    """What an array has to be.

    Attributes:
        dtype: of its values.
        shape: a letter or a word stands for the same size wherever it is used.
        most: largest size in bytes.
    """

    dtype: type[np.generic]
    shape: tuple[int | str, ...]
    most: int = 2**40


TEXT = Kind(np.uint8, ("bytes",), MOST_HEADER)
"""A text, as bytes."""


def compressed_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the content of a compressed npz file, in which every member has a CRC; ``np.load`` reads it as any other."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_arrays(file: BinaryIO, kinds: Mapping[str, Kind], leave: Collection[str] = ()) -> tuple[Arrays, Sizes]:
    """Read the arrays of an npz file, which must be these and no others.

    Args:
        file: opened for reading, with its position at the start.
        kinds: of the arrays by name; words in shapes that begin with the same prefix ``i/`` as the name are its own.
        leave: names of arrays whose declaration is checked and whose values are not read.

    Returns:
        The arrays that were read, and the sizes that words in shapes stand for.

    Raises:
        Exception: of any kind, where the file is damaged or holds something else.
    """
    allowed = check_end(file)
    sizes: Sizes = {}
    found: Arrays = {}
    with zipfile.ZipFile(file) as archive:
        members = _members(archive, kinds)
        declared = sum(member.file_size for member in members.values())
        if declared > allowed:
            raise ValueError(f"it unpacks to {declared:,} bytes, at most {allowed:,} are read from one of its size")
        for name, kind in kinds.items():
            with archive.open(members[name]) as stream:
                read = _read(stream, members[name].file_size, name, kind, sizes, values=name not in leave)
            if read is not None:
                found[name] = read
    return found, sizes


def read_text(file: BinaryIO, name: str) -> npt.NDArray[Any]:
    """Read one text of an npz file, whatever else it holds.

    Raises:
        Exception: of any kind, where the file is damaged or holds no such text.
    """
    check_end(file)
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo(f"{name}.npy")
        if archive.namelist().count(member.filename) > 1 or member.compress_type not in _PACKED:
            raise ValueError(f"it holds {name} twice, or packed in a way that no npz file is")
        with archive.open(member) as stream:
            read = _read(stream, member.file_size, name, TEXT, {}, values=True)
    return np.empty(0, np.uint8) if read is None else read


def text_of(array: npt.NDArray[Any]) -> bytes:
    """Return the text that an array of bytes holds."""
    return bytes(array.tobytes())


def check_end(file: BinaryIO) -> int:
    """Check the end of a zip archive, which tells how long its list of members is; return to how many bytes it may unpack."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 42))
    end = file.read(42)
    file.seek(0)
    if len(end) < 42 or end[20:24] != b"PK\5\6" or end[:4] == b"PK\6\7":
        raise ValueError("it is no npz file, or cut short")
    (names,) = struct.unpack("<I", end[32:36])
    if names > _MOST_NAMES:
        raise ValueError(f"its list of members has {names:,} bytes")
    return max(FLOOR, TIMES * size)


def _members(archive: zipfile.ZipFile, kinds: Mapping[str, Kind]) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    members = {member.filename.removesuffix(".npy"): member for member in listed}
    if len(members) < len(listed):
        raise ValueError("it holds two arrays of one name")
    if missing := [name for name in kinds if name not in members]:
        raise ValueError(f"it lacks {missing[0]!r}")
    if more := [name for name in members if name not in kinds]:
        raise ValueError(f"it holds {more[0][:80]!r}, which has no place in it")
    if any(member.compress_type not in _PACKED for member in listed):
        raise ValueError("it is packed in a way that no npz file is")
    return members


def _read(stream: IO[bytes], size: int, name: str, kind: Kind, sizes: Sizes, *, values: bool) -> npt.NDArray[Any] | None:
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError(f"{name} is of an unknown format")
    prefix = stream.read(2)
    shape, by_columns, dtype = _declared(prefix + stream.read(int.from_bytes(prefix, "little")))
    _check_kind(name, kind, shape, dtype, sizes)
    length = prod(shape) * dtype.itemsize
    if length != size - stream.tell() or length > kind.most:
        raise ValueError(
            f"{name} declares {length:,} bytes; there are {size - stream.tell():,}, and at most {kind.most:,} are read"
        )
    if not values:
        return None
    raw, at = np.empty(length, np.uint8), 0
    while piece := stream.read(_CHUNK):
        raw[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if at != length:
        raise ValueError(f"{name} is cut short")
    array: npt.NDArray[Any] = raw.view(dtype).reshape(shape, order="F" if by_columns else "C")
    return array


@lru_cache(maxsize=256)
def _declared(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type that a header declares; thousands of cells share a few headers, each of which is parsed."""
    return np.lib.format.read_array_header_1_0(io.BytesIO(header))


def _check_kind(name: str, kind: Kind, shape: tuple[int, ...], dtype: np.dtype[Any], sizes: Sizes) -> None:
    prefix = name.rpartition("/")[0]
    fits = len(shape) == len(kind.shape) and dtype == kind.dtype and all(at >= 0 for at in shape)
    for wanted, at in zip(kind.shape, shape, strict=False):
        known = wanted if isinstance(wanted, int) else sizes.setdefault(f"{prefix}/{wanted}" if prefix else wanted, at)
        fits = fits and known == at
    if not fits:
        words = ", ".join(map(str, kind.shape))
        raise ValueError(
            f"{name.rpartition('/')[2]} is {dtype} {shape}, expected {np.dtype(kind.dtype)} ({words}) as in its other arrays"
        )

"""Archives: evaluations in one small file, with all that reports and sweeps need but without counterexamples.

An archive is a ``tar.xz`` of a store's files, with the same bytes for the same results; ``bench merge`` reads it like a store.
Its schema is that of the run records in it.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

from exitbench.errors import UserError
from exitbench.store.attack_spec import as_specified
from exitbench.store.calibration_logits import held_out_key
from exitbench.store.cell import MOST_CELL
from exitbench.store.generations import Generations
from exitbench.store.inside import MOST_TEXT, read_inside
from exitbench.store.inspection import Inspected, inspect
from exitbench.store.run_record import RunRecord
from exitbench.store.store import Store

MEMBER = re.compile(
    r"(runs|trust|networks)/[0-9a-f]{64}\.json|cells/([0-9a-f]{2})/\2[0-9a-f]{62}\.npz|calibration/[0-9a-f]{64}\.npz"
)
"""Names of the files in an archive; an archive with any other is rejected."""

MOST = 2**30
"""Largest unpacked size in bytes: ten times that of a network with seven exits on 10,000 images."""

MOST_MEMBERS = 100_000
"""Largest number of files: a hundred thousand images under thirty attacks are as many cells."""

MOST_TEXTS = 2**27
"""Largest size of all records and trust results together, in bytes."""

_CHUNK, _MEMORY = 2**20, 2**28


def figures(store: Store, records: Sequence[RunRecord]) -> bytes:
    """Pack the finished cells of ``records`` without their images, the trust checks, and the calibration logits.

    Raises:
        UserError: If none of the cells is finished.
    """
    files: dict[str, bytes] = {}
    root = store.root
    records = [as_specified(record) for record in records]
    for path, record in store.run_files():
        if record not in records:
            continue
        files[f"runs/{path.name}"] = read_inside(root, path)
        files |= dict(_cells(store, record))
        held = held_out_key(record.model, record.weights, record.dataset)
        if record.trust is not None and store.read_probe(record.trust) is not None:
            files[f"trust/{record.trust}.json"] = read_inside(root, root / "trust" / f"{record.trust}.json")
        if store.read_held_out(held) is not None:
            files[f"calibration/{held}.npz"] = read_inside(root, root / "calibration" / f"{held}.npz", MOST_CELL)
        if (known := Generations(root).file_of(record.weights)) is not None:
            files[f"networks/{known.name}"] = read_inside(root, known)
    if not any(name.startswith("cells/") for name in files):
        raise UserError(f"{root} holds no finished cell of what is asked for; finish an evaluation first")
    return _packed(files)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a file made by ``figures`` and yield the root of the temporary store; see ``unpacked_and_inspected``."""
    with unpacked_and_inspected(path) as found:
        yield found.root


@contextmanager
def unpacked_and_inspected(path: Path) -> Iterator[Inspected]:
    """Unpack a file made by ``figures`` into a temporary store, and yield what is in it, all of which was looked at.

    Raises:
        UserError: If the file is not an archive, is damaged, or holds anything that cannot be read or does not fit together.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Store(Path(folder)).root
        try:
            with tempfile.TemporaryFile(buffering=0) as raw:
                _decompress(path, raw)
                _extract(raw, root)
        except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
            raise UserError(f"{path} holds no whole figures ({error}); export it again with --format figures") from error
        found = inspect(root)
        if found.newer:
            newer = min(found.newer.values()).removeprefix(f"{root}/")
            raise UserError(f"{path} holds figures that cannot be read: {newer}")
        if found.flaws:
            more = f", and {len(found.flaws) - 1} more" if len(found.flaws) > 1 else ""
            flaw = found.flaws[0].replace(f"{root}/", "")
            raise UserError(f"{path} holds no whole figures ({flaw}{more}); nothing of it is taken: get or export it again")
        yield found


def _cells(store: Store, record: RunRecord) -> Iterable[tuple[str, bytes]]:
    for attack in record.attacks:
        for key in attack.keys:
            if (cell := store.read(key)) is not None:
                told = replace(cell, counterexamples=cell.counterexamples[:0])
                # Compressed together below, which takes half the space.
                yield f"cells/{key[:2]}/{key}.npz", told.to_bytes(compressed=False)


def _packed(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)  # owner, mode and time at their defaults: the same bytes on every machine
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def _decompress(path: Path, raw: IO[bytes]) -> None:
    """Write the tar file in an archive to ``raw``.

    Raises:
        ValueError: It unpacks to more than ``MOST``.
        lzma.LZMAError: It is none, or takes more memory than ``_MEMORY`` to unpack.
    """
    with path.open("rb") as file:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        while not unpacker.eof:
            packed = file.read(_CHUNK) if unpacker.needs_input else b""
            if unpacker.needs_input and not packed:
                raise EOFError("it is cut short")
            raw.write(unpacker.decompress(packed, max_length=_CHUNK))
            if raw.tell() > MOST:
                raise ValueError(f"it unpacks to more than {MOST:,} bytes")
        if unpacker.unused_data or file.read(1):
            raise ValueError("there is more behind its end")
    raw.seek(0)


class _InPieces(io.BufferedRandom):
    """A file of which not much is read at once, as tarfile would for a name of a gigabyte."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _CHUNK:
            raise ValueError(f"it holds a name or a header of {size or 0:,} bytes")
        return super().read(size)


def _extract(raw: IO[bytes], root: Path) -> None:
    seen: set[str] = set()
    texts = 0
    with tarfile.open(fileobj=_InPieces(cast(io.RawIOBase, raw)), mode="r:") as archive:
        for member in archive:
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or not MEMBER.fullmatch(member.name):
                raise ValueError(f"{member.name[:200]!a} has no place in it")
            if member.name in seen:
                raise ValueError(f"it holds {member.name} twice")
            seen.add(member.name)
            texts += member.size if member.name.endswith("json") else 0
            if len(seen) > MOST_MEMBERS or texts > MOST_TEXTS:
                raise ValueError(f"it holds more than {MOST_MEMBERS:,} files, or more than {MOST_TEXTS:,} bytes of text")
            _write(archive, member, root / member.name)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    most = MOST_CELL if target.suffix == ".npz" else MOST_TEXT
    content = archive.extractfile(member)
    if content is None or not 0 <= member.size <= most:
        raise ValueError(f"{member.name} has {member.size:,} bytes, at most {most:,} are read")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        while piece := content.read(_CHUNK):
            file.write(piece)

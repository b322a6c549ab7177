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

from exitbench.errors import UserError
from exitbench.models.stored import NewerSchema
from exitbench.store.calibration_logits import held_out_key
from exitbench.store.generations import Generations
from exitbench.store.run_record import RunRecord, read_run
from exitbench.store.store import Store

MEMBER = re.compile(
    r"runs/[0-9a-f]+\.json|cells/[0-9a-f]{2}/[0-9a-f]+\.npz|trust/[0-9a-f]+\.json|networks/[0-9a-f]+\.json|calibration/[0-9a-f]+\.npz"
)
"""Names of the files in an archive; an archive with any other is rejected."""

MOST = 2**30
"""Largest unpacked size in bytes: ten times that of a network with seven exits on 10,000 images."""


def figures(store: Store, records: Sequence[RunRecord]) -> bytes:
    """Pack the finished cells of ``records`` without their images, the trust checks, and the calibration logits.

    Raises:
        UserError: If none of the cells is finished.
    """
    files: dict[str, bytes] = {}
    for path, record in store.run_files():
        if record not in records:
            continue
        files[f"runs/{path.name}"] = path.read_bytes()
        files |= dict(_cells(store, record))
        held = held_out_key(record.model, record.weights, record.dataset)
        for name in (f"trust/{record.trust}.json", f"calibration/{held}.npz"):
            if (store.root / name).is_file():
                files[name] = (store.root / name).read_bytes()
        if (known := Generations(store.root).file_of(record.weights)) is not None:
            files[f"networks/{known.name}"] = known.read_bytes()
    if not any(name.startswith("cells/") for name in files):
        raise UserError(f"{store.root} holds no finished cell of what is asked for; finish an evaluation first")
    return _packed(files)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a file made by ``figures`` into a temporary store, and yield its root.

    Raises:
        UserError: If the file is not an archive, is damaged, or holds other files.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Store(Path(folder)).root
        try:
            with lzma.open(path) as compressed:
                raw = compressed.read(MOST + 1)
            if len(raw) > MOST:
                raise ValueError(f"it unpacks to more than {MOST:,} bytes")
            with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
                _extract(archive, root)
            for run in sorted((root / "runs").glob("*.json")):
                read_run(run)
        except NewerSchema as error:
            raise UserError(f"{path} holds figures that cannot be read: {str(error).removeprefix(f'{root}/')}") from error
        except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
            raise UserError(f"{path} holds no whole figures ({error}); export it again with --format figures") from error
        yield root


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


def _extract(archive: tarfile.TarFile, root: Path) -> None:
    for member in archive:
        if not member.isfile() or not MEMBER.fullmatch(member.name):
            raise ValueError(f"{member.name!r} has no place in it")
        target = root / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = archive.extractfile(member)
        target.write_bytes(content.read() if content else b"")

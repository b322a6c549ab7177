"""The file of a submission: a zip archive that holds an evaluation, its counterexamples, and the network's weights.

The archive compresses nothing, so that it unpacks to no more than its size. Its members are ``submission.json``,
``figures.tar.xz`` (``exitbench.store.archive``), ``counterexamples.npz`` (``exitbench.verify.export_file``), and, where there are
some, ``weights.safetensors`` and the source files of the author's network under ``code/``, which nothing here executes.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec
from msgspec import Meta

from exitbench.errors import UserError
from exitbench.models.field_types import Key, Line, Number, Text
from exitbench.models.stored import Format, Stored, Unreadable
from exitbench.store.archive import MOST
from exitbench.store.npz import check_end
from exitbench.verify.claims import ClaimSubject

MANIFEST, FIGURES, IMAGES, WEIGHTS = "submission.json", "figures.tar.xz", "counterexamples.npz", "weights.safetensors"
CODE = re.compile(r"code/(?:[A-Za-z0-9_-]{1,80}/){0,8}[A-Za-z0-9_-]{1,80}\.py")
"""Names of source files in a submission."""

NetworkKind = Literal["registered", "published", "own"]
"""What a network is: a registered architecture, one that an installed package publishes, or its author's code."""

_MOST_CODE, _MOST_FILES = 2**20, 200
_MOST = {MANIFEST: 2**22, FIGURES: MOST, IMAGES: 2**32, WEIGHTS: 2**32}
"""Largest size of each member, in bytes."""

_CHUNK = 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes for the same results


class Submission(Stored, frozen=True, kw_only=True):
    """What a submission says of itself.

    Attributes:
        subject: what identifies the evaluation, and where its weights come from.
        network: what the network is.
        reference: of the author's code, as ``tiny_exits.py:make``; None for other networks.
        reported: number of samples right, clean (``none``) and in the ``worst`` case.
        status: why the worst case is not comparable with others, or ``ok``.
        flags: what trust checks found, or ``none``, or ``not checked``.
        given: what its author says of it, by name.
        commands: that make the same results.
        computed_with: versions and devices.
        exitbench: the version that packed it.
        files: SHA-256 of every other member.
    """

    subject: ClaimSubject
    network: NetworkKind
    reference: Line | None
    reported: dict[Line, Number]
    status: Text
    flags: Text
    given: dict[Line, Text]
    commands: tuple[Text, ...]
    computed_with: Text
    exitbench: Line
    files: Annotated[dict[Line, Key], Meta(max_length=_MOST_FILES)]


SUBMISSION = Format("a submission", Submission)


@dataclass(frozen=True)
class Opened:
    """A submission whose members are in a folder.

    Attributes:
        path: of the file.
        says: what it says of itself.
        folder: that its members are in, but its code.
        code: names of its source files.
        damaged: members that are not those that it says, in words.
    """

    path: Path
    says: Submission
    folder: Path
    code: tuple[str, ...]
    damaged: tuple[str, ...]

    @property
    def weights(self) -> Path | None:
        """The file of weights; None where the submission names registered ones."""
        found = self.folder / WEIGHTS
        return found if found.is_file() else None


def to_bytes(says: Submission, members: Mapping[str, bytes]) -> bytes:
    """Return the file, the same bytes for the same members; ``says.files`` are set to their digests.

    Raises:
        UserError: If a member is larger than is read, or has a name that is not.
    """
    for name, content in members.items():
        _check_member(name, len(content))
    files = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(members.items())}
    whole = {MANIFEST: SUBMISSION.text(msgspec.structs.replace(says, files=files)), **dict(sorted(members.items()))}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in whole.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def is_submission(path: Path) -> bool:
    """Return whether a file looks like a submission: a zip archive with its description, or the beginning of one."""
    try:
        with path.open("rb") as file:
            if file.read(30 + len(MANIFEST)).endswith(MANIFEST.encode()):
                return True
            check_end(file)
            with zipfile.ZipFile(file) as archive:
                return MANIFEST in archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Unpack a submission into a temporary folder; nothing in it is executed.

    Raises:
        UserError: If it is damaged, holds anything that has no place in it, or lacks what it needs.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with path.open("rb") as file:
                found = _unpacked(file, Path(folder))
            says = SUBMISSION.read_text((Path(folder) / MANIFEST).read_bytes(), f"{path}: {MANIFEST}")
        except (UserError, MemoryError):
            raise
        except Unreadable as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # zipfile may raise anything on damaged bytes
            how = "get it again, or pack it with `exitbench submit`"
            raise UserError(f"{path} is not a whole submission ({error}); {how}") from error
        code = tuple(name for name in found if CODE.fullmatch(name))
        yield Opened(path, says, Path(folder), code, tuple(_differences(says.files, found)))


def _unpacked(file: BinaryIO, folder: Path) -> dict[str, str]:
    """Write the members into ``folder``, code excepted, and return their digests."""
    check_end(file)
    found: dict[str, str] = {}
    left = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name, size = member.filename, member.file_size
            _check_member(name, size)
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != size or member.flag_bits & 1:
                raise ValueError(f"{name} is packed or encrypted; its members are stored as they are")
            if name in found or len(found) > _MOST_FILES:
                raise ValueError(f"it holds {name} twice, or more than {_MOST_FILES} files")
            left -= size
            if left < 0:
                raise ValueError("its members are larger than it")
            found[name] = _written(archive, member, None if CODE.fullmatch(name) else folder / name)
    if lacking := [name for name in (MANIFEST, FIGURES, IMAGES) if name not in found]:
        raise ValueError(f"it lacks {lacking[0]}")
    return found


def _check_member(name: str, size: int) -> None:
    most = _MOST_CODE if CODE.fullmatch(name) else _MOST.get(name)
    if most is None:
        raise UserError(f"{name[:200]!a} has no place in a submission")
    if size > most:
        raise UserError(f"{name} has {size:,} bytes; a submission holds at most {most:,} of it")


def _written(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path | None) -> str:
    """Return the digest of a member, which is written to ``target``."""
    summed = hashlib.sha256()
    with archive.open(member) as content, target.open("wb") if target else io.BytesIO() as file:
        while piece := content.read(_CHUNK):
            summed.update(piece)
            file.write(piece)
    return summed.hexdigest()


def _differences(said: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*said, *found} - {MANIFEST}):
        if name not in said or name not in found:
            yield f"{name} is {'not in the file' if name in said else f'not named in {MANIFEST}'}"
        elif said[name] != found[name]:
            yield f"{name} is another file than {MANIFEST} names, SHA-256 {found[name][:16]}... for {said[name][:16]}..."

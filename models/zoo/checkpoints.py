"""Guards the checkpoints that another package's loader reads: they are checked first, and nothing in them is executed."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exitbench.models.state_dict import states_in
from exitbench.models.tensor_file import WeightsError
from exitbench.models.tensor_kind import fault
from exitbench.models.weights import file_sha256
from exitbench.models.whole_file import write_whole

RECORD = ".sha256.json"
"""Suffix of the file beside a checkpoint that records its digest."""

_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
]
"""Types that training scripts store beside tensors and that only hold values: their options, and single numbers."""


@dataclass
class Guard:
    """A replacement for ``torch.load`` that checks every file and remembers what it has read.

    Attributes:
        folder: The folder whose files have their digest recorded.
        origin: Where the files come from, for users who download them by hand.
        sha256: Digest (hex) of each file read, in order.
    """

    folder: Path
    origin: str
    sha256: dict[Path, str] = field(default_factory=dict)

    def load(self, file: Any, **settings: Any) -> Any:
        """Load the checkpoint ``file``, in place of ``torch.load``.

        Raises:
            WeightsError: If it is a web page, differs from the recorded file, is damaged, contains code to execute, or a tensor
                without plain values.
        """
        path = Path(file)
        _refuse_web_page(path, self.origin)
        self._check_digest(path)
        settings.pop("pickle_module", None)
        try:
            with torch.serialization.safe_globals(_HARMLESS):
                loaded = _torch_load(path, **{**settings, "weights_only": True})
        except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and more for bad files
            raise WeightsError(
                f"{path} cannot be read ({_reason(error)}); nothing in a checkpoint is executed. If it was cut short, delete it "
                "and give the command again; if you trust what it would execute, write its tensors to a file of their own "
                "with torch.save(net.state_dict(), file) and name that with --weights"
            ) from error
        _refuse_faults(loaded, path)
        return loaded

    def record(self) -> None:
        """Record the digests of files that have none yet, once the network has been loaded."""
        for path, digest in self.sha256.items():
            if path.is_relative_to(self.folder) and not _record_of(path).exists():
                text = json.dumps({"file": path.name, "sha256": digest, "origin": self.origin}, indent=2)
                write_whole(_record_of(path), f"{text}\n".encode())

    def _check_digest(self, path: Path) -> None:
        found = file_sha256(path)
        if (known := recorded(path)) not in (None, found):
            raise WeightsError(
                f"{path} is not the file that was loaded before: SHA-256 {found[:16]}..., recorded {str(known)[:16]}... in "
                f"{_record_of(path).name}. Delete the file to have it fetched again; delete both if it is to be replaced"
            )
        self.sha256[path] = found


def recorded(path: Path) -> str | None:
    """Return the digest recorded when the checkpoint ``path`` was first loaded, or None if it has not been loaded.

    Raises:
        WeightsError: If the record cannot be read.
    """
    record = _record_of(path)
    if not record.exists():
        return None
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{record} cannot be read ({error!r}); delete it to record the digest of {path.name} again") from error


@contextmanager
def guarded_loads(folder: Path, origin: str) -> Iterator[Guard]:
    """Route every ``torch.load`` of a file through a ``Guard``, and have torch's hub store downloads in ``folder``."""
    guard = Guard(folder, origin)
    home = os.environ.get("TORCH_HOME")
    torch.load = guard.load  # type: ignore[assignment] # it takes file names only
    os.environ["TORCH_HOME"] = str(folder)  # the hub adds hub/checkpoints
    try:
        yield guard
    finally:
        torch.load = _torch_load
        if home is None:
            del os.environ["TORCH_HOME"]
        else:
            os.environ["TORCH_HOME"] = home


_torch_load = torch.load


def _refuse_faults(loaded: object, path: Path) -> None:
    for state in states_in(loaded).values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and (why := fault(value)):
                raise WeightsError(f"{path}: the tensor {name!r} {why}")


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + RECORD)


def _refuse_web_page(path: Path, origin: str) -> None:
    """Delete a web page that a server sent instead of the file (a quota, a login), and raise ``WeightsError``."""
    with path.open("rb") as file:
        start = file.read(1024).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        path.unlink()
        raise WeightsError(
            f"what was downloaded to {path} is a web page, not a checkpoint: the server refuses the file, perhaps for a while "
            f"(a quota, a login). It is deleted; try again later, or fetch the file by hand ({origin}) and put it there"
        )


def _reason(error: Exception) -> str:
    """Return torch's message without its advice to switch the protection off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if "Unsupported" in line or "unsupported" in line] or lines[:1] or [type(error).__name__]
    return reasons[0].partition(" Please use")[0].removeprefix("WeightsUnpickler error: ")

"""Reads named tensors from safetensors files and torch checkpoints; nothing in either is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from exitbench.models.errors import InvalidValue
from exitbench.models.harmless import harmless_types
from exitbench.models.state_dict import UNDER, State, states_in

_LIGHTNING = "pytorch-lightning_version"
_LIGHTNING_TOO = ", as PyTorch Lightning writes for its hyper-parameters or callbacks"

_PROGRAMS = {
    "/constants.pkl": ("TorchScript archive (torch.jit.save)", "torch.jit.load"),
    "/archive_format": ("program of torch.export", "torch.export.load"),
}
"""What a member of the archive is called in files that hold programs: their kind, and the function that loads one."""


class WeightsError(InvalidValue):
    """A weight file or card cannot be used; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class TensorFile:
    """What a weight file holds.

    Attributes:
        states: Its state dicts by the keys that they stand under, such as ``model.state_dict``, in the order in which they are to
            be tried; "" where the file is one. There is at least one.
        is_lightning: Whether PyTorch Lightning wrote it.
    """

    states: Mapping[str, State]
    is_lightning: bool = False


def read_tensors(path: Path) -> State:
    """Read the first state dict of a safetensors file or of a torch checkpoint.

    Raises:
        WeightsError: If the file is missing or damaged, or contains no state dict.
    """
    return next(iter(read_file(path).states.values()))


def read_file(path: Path) -> TensorFile:
    """Read all state dicts of a safetensors file or a torch checkpoint.

    Raises:
        WeightsError: If the file is missing or damaged, is a TorchScript archive, contains no state dict, or types that would
            have to be executed.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} is missing")
    if not _is_pickled(path):
        return TensorFile({"": _of_safetensors(path)})
    loaded = read_checkpoint(path)
    states = states_in(loaded)
    if not states:
        keys = (
            f", but {', '.join(map(repr, loaded))}" if isinstance(loaded, Mapping) and loaded else f", but a {_type_name(loaded)}"
        )
        raise WeightsError(
            f"{path} holds no state dict of tensors{keys}; one is looked for as the whole file and under {', '.join(UNDER)}; "
            "write one with torch.save(net.state_dict(), file)"
        )
    return TensorFile(states, isinstance(loaded, Mapping) and _LIGHTNING in loaded)


def read_checkpoint(path: Path) -> Any:
    """Load a file written by ``torch.save``, with ``weights_only=True``; types that can do no harm are allowed beside tensors.

    Raises:
        WeightsError: If the file is unreadable, is a TorchScript archive, or contains anything that would have to be executed.
    """
    _refuse_archive(path)
    try:
        with torch.serialization.safe_globals(harmless_types()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and more for bad files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"it holds an object of the type {refused[1]}{_LIGHTNING_TOO if 'lightning' in refused[1] else ''}"
        raise WeightsError(
            f"{path} is not a readable torch checkpoint ({reason}); nothing in a weights file is executed: "
            "it must hold tensors alone, as torch.save(net.state_dict(), file) writes. "
            "Where you trust the file, torch.load(file, weights_only=False) reads it, and its state dict can be saved alone"
        ) from error


def _refuse_archive(path: Path) -> None:
    """Raise ``WeightsError`` for programs and zip bombs: torch compresses nothing, so that what unpacks to more is a bomb."""
    try:
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            names = archive.namelist()
    except (BadZipFile, OSError, NotImplementedError, ValueError):
        return  # a bare pickle, or what torch will refuse
    for ending, (kind, load) in _PROGRAMS.items():
        if any(name.endswith(ending) for name in names):
            raise WeightsError(
                f"{path} is a {kind}: it holds a program, which is not executed, and no state dict; "
                f"save its tensors with torch.save({load}(file).state_dict(), 'weights.pt') and name the network with --model"
            )
    if unpacked > path.stat().st_size:
        raise WeightsError(f"{path} unpacks from {path.stat().st_size:,} bytes to {unpacked:,}: that is no checkpoint of torch's")


def _is_pickled(path: Path) -> bool:
    """Return whether a file is a zip archive, as torch writes, or a bare pickle; in safetensors, a brace follows eight bytes."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80"))


def _of_safetensors(path: Path) -> State:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); it may be truncated") from error


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"

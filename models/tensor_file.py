"""Reads named tensors from safetensors files and torch checkpoints; nothing in either is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from exitbench.models.errors import InvalidValue

_UNDER = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store a state dict beside other things."""

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that ``DataParallel`` and ``torch.compile`` add to every name."""


class WeightsError(InvalidValue):
    """A weight file or card cannot be used; the message says what is wrong and what to do."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a torch checkpoint that is a state dict or contains one.

    Raises:
        WeightsError: If the file is missing or damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} is missing")
    return _of_checkpoint(path) if _is_pickled(path) else _of_safetensors(path)


def read_checkpoint(path: Path) -> Any:
    """Load a file written by ``torch.save``, with ``weights_only=True``.

    Raises:
        WeightsError: If the file is unreadable, or contains anything that would have to be executed.
    """
    _refuse_bomb(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and more for bad files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{path} is not a readable torch checkpoint ({reason}); nothing in a weights file is executed: "
            "it must hold tensors alone, as torch.save(net.state_dict(), file) writes"
        ) from error


def _refuse_bomb(path: Path) -> None:
    """Raise ``WeightsError`` for an archive larger unpacked than packed: torch does not compress, so it is a zip bomb."""
    try:
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (BadZipFile, OSError, NotImplementedError, ValueError):
        return  # a bare pickle, or what torch will refuse
    if unpacked > path.stat().st_size:
        raise WeightsError(f"{path} unpacks from {path.stat().st_size:,} bytes to {unpacked:,}: that is no checkpoint of torch's")


def _is_pickled(path: Path) -> bool:
    """Return whether a file is a zip archive, as torch writes, or a bare pickle; in safetensors, a brace follows eight bytes."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] != b"{" and start.startswith((b"PK\x03\x04", b"\x80"))


def _of_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); it may be truncated") from error


def _of_checkpoint(path: Path) -> dict[str, Tensor]:
    loaded = read_checkpoint(path)
    for name in _UNDER:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds no state dict of tensors; write one with torch.save(net.state_dict(), file)")
    tensors = {str(name): tensor for name, tensor in loaded.items()}
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors

"""The fingerprint of a network: what it computes on fixed noise, compared where a stored result is to be used again."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.search_model import relative_difference

SCALES = (0.1, 0.5, 1.0)
"""Of the noise that the fingerprint is taken on."""

ROUNDING = 1e-4
"""Largest difference, relative to the spread of an exit's logits, that counts as rounding: other machines, devices and numbers
of threads stay below a tenth of it in fp32."""


@dataclass(frozen=True)
class Fingerprint:
    """Logits of all exits on fixed noise.

    Attributes:
        shape: ``(K, B, classes)``.
        raw: the float32 values, little-endian.
    """

    shape: tuple[int, int, int]
    raw: bytes

    def difference(self, other: Fingerprint) -> float:
        """Return the largest difference relative to the spread of an exit's logits in ``other``; 1e9 where shapes differ."""
        if self.shape != other.shape:
            return 1e9
        return relative_difference(self._logits(), other._logits())

    def agrees(self, other: Fingerprint) -> bool:
        """Return whether two networks compute the same, up to rounding."""
        return self.difference(other) <= ROUNDING

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the exact values."""
        return hashlib.sha256(repr(self.shape).encode() + self.raw).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"shape": list(self.shape), "float32": base64.b64encode(self.raw).decode()}

    @staticmethod
    def read(described: Mapping[str, Any]) -> Fingerprint:
        """Read it back.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        exits, images, classes = (int(size) for size in described["shape"])
        raw = base64.b64decode(described["float32"], validate=True)
        if len(raw) != 4 * exits * images * classes:
            raise ValueError("a fingerprint of another size")
        return Fingerprint((exits, images, classes), raw)

    def _logits(self) -> Tensor:
        values = np.frombuffer(self.raw, dtype="<f4").reshape(self.shape)
        return torch.from_numpy(np.nan_to_num(values, nan=0.0, posinf=1e30, neginf=-1e30))


@torch.no_grad()
def fingerprint(model: EarlyExitNet, shape: tuple[int, int, int]) -> Fingerprint:
    """Take the fingerprint of a network in evaluation mode on noise of ``shape`` ``(C, H, W)`` at several scales.

    Random numbers that it draws from torch, numpy or Python are the same every time; the caller's random state is restored.
    """
    device = next(model.parameters()).device
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with _seeded(), _plain_fp32():
        logits = torch.cat([model((scale * noise).to(device)) for scale in SCALES], dim=1).float().cpu()
    exits, images, classes = logits.shape
    return Fingerprint((exits, images, classes), logits.contiguous().numpy().astype("<f4").tobytes())


@contextmanager
def _seeded() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _plain_fp32() -> Iterator[None]:
    before, precision = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
        torch.set_float32_matmul_precision(precision)


def renewed(code: str, taken: Fingerprint) -> str:
    """Return the digest of a network whose digest of code and tensors, ``code``, is that of results of another function."""
    return taken.digest()[:32] + code[:32]


def is_of(code: str, known_as: str) -> bool:
    """Return whether results known as ``known_as`` are of a network with this digest of code and tensors."""
    return known_as == code or known_as[32:] == code[:32]

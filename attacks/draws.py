"""Uniform and normal numbers that follow from seed, stream, sample, restart and position alone, the same bits on every device."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from exitbench.attacks.philox import WORD, philox

_CENTRE = (
    (3.3871327179, 5.0434271938e1, 1.5929113202e2, 5.9109374720e1),
    (1.0, 1.7895169469e1, 7.8757757664e1, 6.7187563600e1),
)
_TAIL = ((1.4234372777, 2.7568153900, 1.3067284816, 1.7023821103e-1), (1.0, 7.3700164250e-1, 1.2021132975e-1))
"""Wichura's rational functions: coefficients of numerator and denominator, from the constant on."""

_ATANH = tuple(2 / (2 * k + 1) for k in range(8))
_MIDDLE = math.sqrt(0.5)


_AT_ONCE = {"cpu": 2**17}
"""Numbers that are computed at once, so that they stay in the cache."""
_MOST_AT_ONCE = 2**24
"""The same elsewhere, so that memory is bounded."""

Draw = Callable[[Tensor], Tensor]


def uniform(
    seed: int, stream: str, samples: Tensor, shape: Sequence[int], device: torch.device | None = None, restart: int = 0
) -> Tensor:
    """Draw uniform numbers in [0, 1), multiples of 2^-24, for each of some samples.

    Args:
        seed: Seed of the evaluation or the training; any integer.
        stream: What the numbers are for: streams of other names are independent.
        samples: Number ``(B,)`` of each sample, int64; where it stands in a batch does not matter.
        shape: Shape of the numbers of each sample.
        device: Device to draw on; None for that of ``samples``.
        restart: Number of the draw, in [0, 2^32).

    Returns:
        ``(B, *shape)`` in float32. Nothing waits for the device.
    """
    return _drawn(_uniform, seed, stream, samples, shape, device, restart)


def normal(
    seed: int, stream: str, samples: Tensor, shape: Sequence[int], device: torch.device | None = None, restart: int = 0
) -> Tensor:
    """Draw standard normal numbers, all within 6.4 of zero, for each of some samples; arguments as of ``uniform``.

    Numbers are quantiles of 32-bit uniform ones, to seven digits. They are computed in float64 by operations that IEEE 754
    prescribes to the last bit, one at a time, and rounded to float32, so that devices cannot differ.
    """
    return _drawn(_quantile, seed, stream, samples, shape, device, restart)


def hashed(*parts: object) -> int:
    """Return 64 bits that follow from the representation of ``parts``."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def _drawn(
    of_words: Draw, seed: int, stream: str, samples: Tensor, shape: Sequence[int], device: torch.device | None, restart: int
) -> Tensor:
    """Draw words of 32 bits and turn them into numbers; the number at 4 b + w of a sample is word w of its block b."""
    device = device or samples.device
    where = torch.device("cpu") if device.type == "mps" else device  # Apple's GPUs have no float64
    size, key = math.prod(shape), hashed(seed, stream)
    block = torch.arange(-(-size // 4), device=where)
    samples = samples.to(where, non_blocking=where.type != "cpu").view(-1, 1)
    parts = torch.split(samples, max(1, _AT_ONCE.get(where.type, _MOST_AT_ONCE) // max(size, 1)))
    found = []
    for part in parts:
        words = philox((block, torch.full_like(block, restart), part, part >> 32), (key & WORD, key >> 32))
        found.append(of_words(words).permute(1, 2, 0).reshape(len(part), -1)[:, :size])
    return torch.cat(found).reshape(len(samples), *shape).to(device)


def _uniform(words: Tensor) -> Tensor:
    return (words >> 8).float().mul_(2.0**-24)


def _quantile(words: Tensor) -> Tensor:
    """Return the standard normal quantile of ``(words + 1/2) / 2^32`` (Wichura, Applied Statistics 37, 1988, AS 241, PPND7)."""
    q = (words.double() - (2.0**31 - 0.5)) * 2.0**-32
    r = 0.180625 - q * q
    centre = q * (_polynomial(r, _CENTRE[0]) / _polynomial(r, _CENTRE[1]))
    r = (-_log(0.5 - q.abs())).sqrt() - 1.6
    tail = _polynomial(r, _TAIL[0]) / _polynomial(r, _TAIL[1])
    return torch.where(q.abs() <= 0.425, centre, torch.where(q < 0, -tail, tail)).float()


def _log(x: Tensor) -> Tensor:
    """Return the natural logarithm of positive numbers to twelve digits, with no function that devices round differently."""
    fraction, exponent = torch.frexp(x)
    s = (fraction - _MIDDLE) / (fraction + _MIDDLE)
    return exponent.double() * math.log(2) + (s * _polynomial(s * s, _ATANH) + math.log(_MIDDLE))


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    value = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        value = value.add_(coefficient).mul_(x)
    return value.add_(coefficients[0])

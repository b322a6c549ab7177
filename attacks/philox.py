"""Philox4x32-10, a counter-based generator: a random number is a function of where it stands, the same bits on every device.

Source: Salmon, Moraes, Dror & Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011, section 3.3, in their constants.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
"""Words are of 32 bits, in tensors of int64: torch multiplies those on every device, and their products wrap around."""


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Encrypt counters to random words.

    Args:
        counter: Four words of each counter, as int64 whose lower 32 bits count, of shapes that broadcast to ``S``, on one device.
        key: Two words in [0, 2^32).

    Returns:
        The words of each counter, int64 in [0, 2^32), ``(4, *S)``. Nothing is copied from the host or waits for the device.
    """
    c0, c1, c2, c3 = torch.stack(torch.broadcast_tensors(*counter))  # type: ignore[no-untyped-call]
    first, second = torch.empty_like(c0), torch.empty_like(c0)
    for i in range(ROUNDS):
        # The upper 32 bits of words are whatever was left there; they are cleared before they would count.
        torch.mul(c0.bitwise_and_(WORD), MULTIPLIERS[0], out=first)
        torch.mul(c2.bitwise_and_(WORD), MULTIPLIERS[1], out=second)
        of_round = [(word + i * step) & WORD for word, step in zip(key, WEYL, strict=True)]
        torch.bitwise_right_shift(second, 32, out=c0).bitwise_xor_(c1).bitwise_xor_(of_round[0])
        torch.bitwise_right_shift(first, 32, out=c2).bitwise_xor_(c3).bitwise_xor_(of_round[1])
        c1, second = second, c1
        c3, first = first, c3
    return torch.stack((c0, c1, c2, c3)).bitwise_and_(WORD)

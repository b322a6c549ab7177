"""Compiles networks piece by piece with ``torch.compile``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

VARIANTS = 8
"""Largest number of variants that one piece is compiled in (training or not, with or without gradients, other sizes): torch's
own default."""


def compile_pieces(pieces: Sequence[nn.Module], backend: Any = "inductor") -> None:
    """Compile every piece in place, when it is first called, for batches of any size: they shrink where samples leave.

    torch counts compiled variants by the code of ``forward``, which pieces of one class share. Beyond its limit it only warns and
    runs the code uncompiled. The limit is therefore raised to what this number of pieces needs.
    """
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS * len(pieces))
    for piece in pieces:
        # Not ``piece.compile``: in some releases (2.11) it does nothing for torch's own classes, such as ``Sequential``.
        piece.forward = torch.compile(piece.forward, dynamic=True, backend=backend)

"""Networks compiled piece by piece, each piece for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

VARIANTS = 8
"""Ways in which one piece is compiled at most: trained or not, with or without gradients, for other sizes; torch's own number."""


def compile_pieces(pieces: Sequence[nn.Module], backend: Any = "inductor") -> None:
    """Have every piece compiled, in place, when it is first called: for batches of any size, as they shrink where samples leave.

    torch counts what it compiled by the code of ``forward``, which pieces of one class share. Beyond its limit it runs what
    comes as it is, with no more than a warning: the limit is raised to what so many pieces need.
    """
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS * len(pieces))
    for piece in pieces:
        # Not ``piece.compile``: in some releases (2.11) it leaves alone what is of torch's own classes, as ``Sequential`` is.
        piece.forward = torch.compile(piece.forward, dynamic=True, backend=backend)

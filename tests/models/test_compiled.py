"""Every piece of a network is compiled."""

import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from exitbench.models.compiled import VARIANTS, compile_pieces


@torch._dynamo.config.patch(recompile_limit=VARIANTS)
def test_every_piece_is_compiled_however_many_there_are():
    torch._dynamo.reset()
    pieces = [nn.Sequential(*(nn.Linear(3, 3) for _ in range(i + 1))) for i in range(VARIANTS + 4)]
    counter = CompileCounter()
    x = torch.rand(5, 3)
    expected = [piece(x) for piece in pieces]
    compile_pieces(pieces, backend=counter)
    for piece, wanted in zip(pieces, expected, strict=True):
        torch.testing.assert_close(piece(x), wanted)
    assert counter.frame_count == len(pieces)

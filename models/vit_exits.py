"""A small vision transformer for images of 32 pixels, with a head behind every second block.

Architecture: Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), with patches of 4 pixels. Blocks normalise before
attention and before the two-layer network. Exits classify the class token, as in Bakhtiarnia, Zhang & Iosifidis, "Multi-Exit
Vision Transformer for Dynamic Inference" (BMVC 2021).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exitbench.models import papers
from exitbench.models.multi_exit import MultiExitNet, without_branches
from exitbench.models.registry import register_model

PATCH, WIDTH, DEPTH, N_HEADS = 4, 128, 8, 4


class Tokens(nn.Module):
    """Turns images ``(B, 3, H, W)`` into a class token and one token per patch ``(B, 1 + patches, width)``, with positions."""

    def __init__(self, width: int, patch: int, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (side // patch) ** 2, width))

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.patches(x)
        rows, columns = patches.shape[-2:]
        return torch.cat([self.first.expand(len(x), -1, -1), patches.flatten(2).mT], 1) + self._positions(rows, columns)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions of the class token and of a grid of patches; for images of another size they are interpolated."""
        side = round((self.positions.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return self.positions
        grid = self.positions[:, 1:].mT.reshape(1, -1, side, side)
        resized = F.interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([self.positions[:, :1], resized.flatten(2).mT], 1)


class Block(nn.Module):
    """A transformer block: attention, then a network of two layers on each token, each on normalised tokens and added to them."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attention(self.before_attention(x))
        mixed: Tensor = x + self.mlp(self.before_mlp(x))
        return mixed

    def _attention(self, x: Tensor) -> Tensor:
        batch, n_tokens, _ = x.shape
        query, key, value = self.inputs(x).view(batch, n_tokens, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1)
        out: Tensor = self.output((weights @ value).transpose(1, 2).flatten(2))
        return out


class _ClassToken(nn.Module):
    """Returns the class token ``(B, width)``."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


_cifar = partial(register_model, dataset="cifar10", input_shape=(3, 32, 32))


@_cifar(title="ViT with early exits", family="vision transformer", paper=papers.VIT)
def vit_exits() -> MultiExitNet:
    """A vision transformer of 8 blocks, width 128, patches of 4 pixels: 4 exits."""
    stages, heads = [], []
    for start in range(0, DEPTH, 2):
        first = [] if start else [Tokens(WIDTH, PATCH, side=32)]
        stages.append(nn.Sequential(*first, Block(WIDTH, N_HEADS), Block(WIDTH, N_HEADS)))
        heads.append(nn.Sequential(_ClassToken(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)))
    return MultiExitNet(stages, heads)


@_cifar(title="ViT without early exits", family="vision transformer", paper=papers.VIT)
def vit_whole() -> MultiExitNet:
    """The backbone of the vision transformer without its early heads."""
    return without_branches(vit_exits())

"""Small networks with known answers, and small stand-ins."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from exitbench.attacks.noise import Noise
from exitbench.models.multi_exit import MultiExitNet

SHAPE = (1, 2, 2)
ROOT = Path(__file__).parent.parent


def linear_exits(n_exits: int = 3, n_classes: int = 3, shape: tuple[int, int, int] = SHAPE, scale: float = 1.0) -> MultiExitNet:
    """A net whose exit k is affine in the input, so that every attack has a closed-form optimum."""
    pixels = shape[0] * shape[1] * shape[2]
    generator = torch.Generator().manual_seed(n_exits)
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(pixels, n_classes)) for _ in range(n_exits)]
    for head in heads:
        with torch.no_grad():
            head[1].weight.copy_(scale * torch.randn(n_classes, pixels, generator=generator))
    net = MultiExitNet([Passed() for _ in range(n_exits)], heads)
    return net.eval().requires_grad_(False)


class Passed(nn.Module):
    """A stage that returns its input as a new tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


def small_convolutional(n_exits: int = 3) -> MultiExitNet:
    """A nonlinear net, small enough to attack in milliseconds."""
    torch.manual_seed(7)
    stages: list[nn.Module] = [nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())]
    stages += [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(n_exits - 1)]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(64, 5)) for _ in range(n_exits)]
    return MultiExitNet(stages, heads).eval().requires_grad_(False)


def batch(n: int = 6, shape: tuple[int, int, int] = SHAPE, n_classes: int = 3, seed: int = 1) -> tuple[Tensor, Tensor, Noise]:
    """Images well inside the box, labels and noise."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.4 + 0.2 * torch.rand(n, *shape, generator=generator)
    y = torch.randint(n_classes, (n,), generator=generator)
    return x, y, Noise(seed, tuple(range(n)))

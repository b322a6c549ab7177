"""A small network trained on the 8x8 digits in a second or two, and faults to plant in it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.data.split import Split
from exitbench.models.calibration import equal_share
from exitbench.models.cost import measure_costs
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import Policy
from exitbench.runner.prepare import Prepared
from exitbench.target.target import Target

EPS = 0.2
SETTINGS = AttackSettings(ThreatModel("Linf", EPS), steps=20, step_size=EPS / 4)
SHAPE = (1, 8, 8)
TRAINED_ON = 1400


@cache
def digits() -> Split:
    """Return scikit-learn's digits in their order; the first ``TRAINED_ON`` are for training, the rest for testing."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, *SHAPE) / 16).astype("float32")
    return Split("digits", "test", pixels, labels.astype("int64"), 10, "scikit-learn")


@cache
def trained() -> tuple[MultiExitNet, Policy]:
    """Three exits, trained on images perturbed by one gradient step each, and thresholds that send inputs to all of them."""
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())]
    stages += [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()) for _ in range(2)]
    heads = [nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)) for _ in range(3)]
    net = MultiExitNet(stages, heads)
    batch = digits().batch(0, TRAINED_ON)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(6):
        for rows in torch.randperm(TRAINED_ON).split(140):
            x, y = batch.x[rows].requires_grad_(), batch.y[rows]
            (gradient,) = torch.autograd.grad(_loss(net(x), y), x)
            perturbed = (x.detach() + 0.1 * gradient.sign()).clamp(0, 1)
            optimiser.zero_grad()
            _loss(net(perturbed), y).backward()
            optimiser.step()
    net.eval().requires_grad_(False)
    return net, equal_share(net(batch.x))


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    return torch.stack([F.cross_entropy(exit_, y) for exit_ in logits]).mean()


def ready(net: MultiExitNet | None = None, settings: AttackSettings = SETTINGS, weights: str = "0", n: int = 32) -> Prepared:
    """An evaluation of ``net``, by default the healthy one, on images that it was not trained on."""
    healthy, policy = trained()
    split = digits()
    test = Split(split.dataset, "test", split.images[TRAINED_ON:], split.labels[TRAINED_ON:], 10, split.source)
    costs = measure_costs(healthy, SHAPE)
    target = Target("toy", net or healthy, "none", weights * 64, "a test", policy, costs)
    return Prepared(target, test, n, settings, None)


def planted(stage: nn.Module | None = None, head: nn.Module | None = None, heads: Sequence[int] = (0, 1, 2)) -> MultiExitNet:
    """The trained net with ``stage`` before its first stage and ``head`` behind the given heads (0-based)."""
    net = copy.deepcopy(trained()[0])
    if stage is not None:
        net.stages[0] = nn.Sequential(stage, net.stages[0])
    for k in heads if head is not None else ():
        net.heads[k] = nn.Sequential(net.heads[k], head)
    return net.eval()


class Scaled(nn.Module):
    """Logits so large that the softmax saturates."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * z


class Quantised(nn.Module):
    """Five grey levels: a step function, whose gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (4 * x).round() / 4


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.02 * torch.randn_like(x)


class NoisyWithTheBatch(nn.Module):
    """Noise that is the same every time but depends on the position in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return x + 0.02 * torch.randn(x.shape, generator=generator)


class Probabilities(nn.Module):
    """A softmax plus a small offset, which a check for sums of exactly one would not catch."""

    def forward(self, z: Tensor) -> Tensor:
        return z.softmax(-1) + 1e-4 * torch.sin(100 * z)


class Detached(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.detach()


class Misleading(nn.Module):
    """The identity, with a gradient that points the wrong way."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.detach() - x

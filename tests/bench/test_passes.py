"""Passes are counted in samples, whatever the first stage passes on."""

import pytest
import torch
from torch import nn

from exitbench.models.multi_exit import MultiExitNet
from exitbench.runner.passes import counted
from tests.bench.evaluated import evaluate, only_evaluation
from tests.bench.trained import ready, trained

X = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Scales(nn.Module):
    """Passes on the image and the same at half its size, in a structure."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        fine = self.layer(x)
        coarse = nn.functional.avg_pool2d(x, 2)
        return {"fine": fine, "coarse": coarse} if self.kind is dict else self.kind((fine, coarse))


class Passed(nn.Module):
    def forward(self, x):
        return x


class Head(nn.Module):
    """Classifies one scale, the finest or the coarsest."""

    def __init__(self, place: int, pixels: int) -> None:
        super().__init__()
        self.place, self.layer = place, nn.Linear(pixels, 3)

    def forward(self, features):
        parts = list(features.values()) if isinstance(features, dict) else features
        return self.layer(parts[self.place].flatten(1))


def scaled(kind: type) -> MultiExitNet:
    return MultiExitNet([Scales(kind), Passed()], [Head(1, 4), Head(0, 16)]).eval().requires_grad_(False)


@pytest.mark.parametrize("kind", [list, tuple, dict])
@pytest.mark.parametrize("exits", [[0], [1], [0, 1]])
def test_a_backward_pass_counts_once_whichever_tensor_it_goes_through(kind, exits):
    net = scaled(kind)
    with counted(net) as passes:
        x = X.clone().requires_grad_()
        logits = net(x)
        for _ in range(2):
            torch.autograd.grad(logits[exits].sum(), x, retain_graph=True)
        with torch.no_grad():
            net(X[:2])
    assert (passes.forwards, passes.backwards) == (7, 10)


def test_a_network_whose_stages_pass_on_lists_is_attacked(tmp_path):
    class Listed(nn.Module):
        def __init__(self, stage):
            super().__init__()
            self.stage = stage

        def forward(self, features):
            return [self.stage(features[0] if isinstance(features, list) else features)]

    class Unlisted(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head = head

        def forward(self, features):
            return self.head(features[0])

    plain = trained()[0]
    net = MultiExitNet([*map(Listed, plain.stages)], [*map(Unlisted, plain.heads)]).eval().requires_grad_(False)
    found = {}
    for name, each in (("plain", plain), ("lists", net)):
        _, store = evaluate(tmp_path / name, ["average", "adaptive", "slowdown:free"], ready(each))
        found[name] = only_evaluation(store)
    for one, other in zip(found["plain"].attacks, found["lists"].attacks, strict=True):
        assert (one.correct == other.correct).all() and one.backwards == other.backwards > 0

"""RDI-SmallCNN for MNIST and the same backbone without branches.

Architecture: Hu, Chen, Wang & Wang, "Triple Wins" (ICLR 2020), on the SmallCNN of TRADES (Zhang et al., ICML 2019).
"""

from __future__ import annotations

from functools import partial

from torch import nn

from exitbench.models import papers
from exitbench.models.multi_exit import MultiExitNet, without_branches
from exitbench.models.registry import register_model

_mnist = partial(register_model, dataset="mnist", input_shape=(1, 28, 28))


@_mnist(title="RDI-SmallCNN", family="plain CNN", paper=papers.RDI)
def rdi_smallcnn() -> MultiExitNet:
    """RDI-SmallCNN: four convolutions, 3 exits."""
    stages = [
        nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
    ]
    heads = [
        nn.Sequential(nn.Conv2d(32, 16, 3, stride=2), nn.MaxPool2d(2), nn.Flatten(), *_linear_branch(576)),
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), *_linear_branch(1600)),
        nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(1024, 200), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)),
        ),
    ]
    return MultiExitNet(stages, heads)


def _linear_branch(inputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, 200), nn.Dropout(0.5), nn.Linear(200, 200), nn.Linear(200, 10)]


@_mnist(title="SmallCNN", family="plain CNN", paper=papers.TRADES)
def smallcnn() -> MultiExitNet:
    """SmallCNN: the backbone of RDI-SmallCNN without branches."""
    return without_branches(rdi_smallcnn())

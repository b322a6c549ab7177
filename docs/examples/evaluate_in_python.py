"""Train a network with two exits on 8x8 digits, and evaluate it from Python: python docs/examples/evaluate_in_python.py"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import exitbench


class TwoExits(nn.Module):
    """Returns the logits of both exits; images (B, 1, 8, 8) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk_1 = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.exit_1 = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
        self.trunk_2 = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU())
        self.exit_2 = nn.Sequential(nn.Flatten(), nn.Linear(512, 10))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.trunk_1(x)
        return [self.exit_1(features), self.exit_2(self.trunk_2(features))]


digits = load_digits()
images, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
train, held_out, test = ((images[part], labels[part]) for part in (slice(1200), slice(1200, 1600), slice(1600, 1664)))

torch.manual_seed(0)
net = TwoExits()
optimiser = torch.optim.Adam(net.parameters(), 0.01)
for _ in range(100):
    optimiser.zero_grad()
    sum(F.cross_entropy(logits, train[1]) for logits in net(train[0])).backward()
    optimiser.step()
net.eval()

found = exitbench.evaluate(net, dataset=test, calibration=held_out, eps=0.05, attacks="average,adaptive", results="results")
print(found)
print(found.attacks[["accuracy", "ci_low", "ci_high", "mmacs", "backwards"]])
found.plot().savefig("evaluation.png")

last = exitbench.evaluate(net, dataset=test, policy="exit:2", eps=0.05, attacks="average,adaptive", results="results")
print(exitbench.compare(found, last))

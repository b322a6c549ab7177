"""The adaptive and the slowdown attack under every rule, against the truth: networks on two pixels, searched with a fine grid."""

import pytest
import torch
from torch import nn

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.slowdown import Slowdown
from exitbench.models.calibration import equal_share
from exitbench.models.gate_scores import with_score
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import Policy, deployed_logits
from exitbench.models.rules.registry import calibrated_kinds
from exitbench.models.rules.temperature import Tempered, tempered

pytestmark = pytest.mark.no_cover  # thousands of the same steps, whose lines the attacks' own tests count

EPS, N, N_EXITS, WIDTH = 0.1, 80, 4, 12
BUDGET = 400  # of the default, which breaks no less
COSTS = (1.0, 2.0, 3.0, 4.0)
SCALES = (0.7, 1.0, 1.4, 1.0)


class Gated(nn.Module):
    """A head with a gate head beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.gate = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 1)

    def forward(self, features):
        return with_score(self.classes(features), self.gate(features)[:, 0])


class OddClass(Policy):
    """A rule of one's own whose gates have no gradient."""

    def leaves(self, seen):
        return seen[-1].argmax(-1) % 2 == len(seen) % 2

    def check(self, n_exits):
        pass


def curved(seed):
    """A network of four exits on two pixels, whose decision boundaries are curved on the scale of the ball."""
    torch.manual_seed(seed)
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(2, WIDTH), nn.Tanh())]
    stages += [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(N_EXITS - 1)]
    net = MultiExitNet(stages, [Gated() for _ in range(N_EXITS)]).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(2.0)
    return net


def rules(net):
    logits = net(torch.rand(500, 1, 1, 2, generator=torch.Generator().manual_seed(1)))
    found = {kind: equal_share(logits, kind) for kind in calibrated_kinds()}
    found["vote at temperatures"] = Tempered(equal_share(tempered(logits, SCALES), "vote"), SCALES)
    found["without a gradient"] = OddClass()
    return found


def around(x, side=41):
    """All points of a grid on the ball around each image, ``(N, side^2, 1, 1, 2)``."""
    line = torch.linspace(-EPS, EPS, side)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(1, -1, 1, 1, 2)
    return (x[:, None] + grid).clamp(0, 1)


X = torch.rand(N, 1, 1, 2, generator=torch.Generator().manual_seed(2))
POINTS = around(X).flatten(0, 1)
NETS = [(net, rules(net), net(POINTS)) for net in map(curved, range(3))]
NAMES = list(NETS[0][1])
NOISE = Noise(0, tuple(range(N)))


@pytest.mark.parametrize("name", NAMES)
def test_the_adaptive_attack_comes_within_a_point_of_the_worst_case_on_a_grid(name):
    truth = left = 0.0
    for net, found, logits in NETS:
        policy = found[name]
        y = deployed_logits(net(X), policy)[0].argmax(-1)
        on_grid = deployed_logits(logits, policy)[0].argmax(-1).view(N, -1)
        truth += float((on_grid == y[:, None]).all(1).double().mean()) / len(NETS)
        x_adv = Adaptive(ThreatModel("Linf", EPS), policy, BUDGET)(net, X, y, noise=NOISE)
        left += float((deployed_logits(net(x_adv), policy)[0].argmax(-1) == y).double().mean()) / len(NETS)
    assert truth < 0.995, "the grid can tell a good attack from a bad one"
    assert left <= truth + 0.01


@pytest.mark.parametrize("name", [name for name in NAMES if name != "without a gradient"])
def test_the_slowdown_attack_comes_within_two_percent_of_the_highest_cost_on_a_grid(name):
    costs = torch.tensor(COSTS)
    truth = reached = clean = 0.0
    for net, found, logits in NETS:
        policy = found[name]
        x_adv = Slowdown(ThreatModel("Linf", EPS), policy, COSTS)(net, X, torch.zeros(N).long(), noise=NOISE)
        truth += float(costs[policy(logits)].view(N, -1).amax(1).mean()) / len(NETS)
        reached += float(costs[policy(net(x_adv))].mean()) / len(NETS)
        clean += float(costs[policy(net(X))].mean()) / len(NETS)
    assert clean < 0.99 * truth, "the grid can tell a good attack from a bad one"
    assert reached >= 0.98 * truth
